"""TFLite without TensorFlow: write, quantize, inspect and run ``.tflite`` files.

`emit`, `quantize`, `inspect` and `run` are the way in; they import the schema and the runtime when they are
called. What lies behind them imports the schema at once.
"""
