"""The device's shell: MQTT, trust, delivery, installed versions, runtimes, local inference, telemetry.

It installs from the base package alone and imports of ours only `fleet`.
"""

import os

# NumPy's BLAS would start a thread for each core. This process computes in onnxruntime, and the setting
# cuts its cold start by two thirds. It must stand before NumPy is imported anywhere below.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
