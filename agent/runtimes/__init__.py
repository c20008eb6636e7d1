"""Inference runtimes behind one protocol, each imported only when a device uses it.

::

    protocol.py     what the agent asks of a runtime; conversion.py: what one says, in our words
      onnx.py         ONNX Runtime, by the best of providers.py
      litert.py       LiteRT, or tflite-runtime
    registry.py     which of them this device has; options.py: what its owner says of them
    loading.py      from a model's files to one that computes
    self_test.py    whether it answers the golden inputs rightly; benchmark.py: how fast
    joining.py      whether requests that wait are better computed in one run
"""
