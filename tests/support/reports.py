"""Reports of real conversions that go well, go badly, or carry names that someone chose with bad intent."""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.linear_model import LogisticRegression

from converters.convert import Conversion, convert
from converters.data.samples import Samples
from converters.sources.sklearn import open_sklearn
from tests.support.digits import digits_conversion, digits_source, fitted_model, training_and_held_out

HOSTILE = '"><script>document.title="taken over"</script><img src=x onerror=alert(1)>&amp;'
HOSTILE_CLASSES = (*(f"<b>{number}</b>" for number in range(9)), HOSTILE[:64])


@cache
def sound_conversion() -> Conversion:
    """Return a conversion of the digits' MLP in which everything passes."""
    return digits_conversion(targets=("onnx-fp32", "ort-fp32", "onnx-int8", "tflite-int8"))


@cache
def refused_conversion() -> Conversion:
    """Return one whose int8 variant is calibrated on blank images, so that it is refused, with its layers."""
    return digits_conversion(targets=("onnx-fp32", "onnx-int8"), samples=_blank(), sensitivity=True)


@cache
def hostile_conversion() -> Conversion:
    """Return the same of a model and classes with hostile names."""
    source = open_sklearn(fitted_model(), name=HOSTILE, classes=HOSTILE_CLASSES, sample_shape=(8, 8))
    return digits_conversion(source, targets=("onnx-fp32", "onnx-int8"), samples=_blank(), sensitivity=True)


@cache
def many_classes_conversion() -> Conversion:
    """Return a conversion of a model with 30 classes that lie close together."""
    random = np.random.RandomState(0)
    labels = np.arange(900) % 30
    features = random.normal(size=(30, 4))[labels] + random.normal(scale=0.4, size=(900, 4))
    model = LogisticRegression(max_iter=300).fit(features[:450], labels[:450])
    samples = Samples({"features": features[450:].astype(np.float32)}, labels[450:])
    return convert(open_sklearn(model), targets=("onnx-fp32", "onnx-int8"), samples=samples)


@cache
def unsampled_conversion() -> Conversion:
    """Return a conversion without samples."""
    return convert(digits_source("logistic"), targets=("onnx-fp32", "onnx-int8"))


def _blank() -> Samples:
    training, _ = training_and_held_out()
    return Samples({"features": np.zeros_like(training.features)})
