"""TFLite without TensorFlow: write, quantize, inspect and run ``.tflite`` files."""
