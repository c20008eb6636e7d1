"""Asks NannyML for accuracies without labels, or River's ADWIN whether errors became more, where they are.

::

    python quality_judge.py nannyml answers.npz     (of each case its answers, labels, and current answers)
    python quality_judge.py river errors.npz        (of each case 0 or 1 by label, shape (streams, labels))

It prints JSON: for each case a list, of the estimate of each grade, or of how many labels came until ADWIN
alarmed first (null for never).
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def _nannyml(tables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    import nannyml
    import pandas as pd

    def frame(answers: np.ndarray) -> Any:
        found = pd.DataFrame({f"p{number}": column for number, column in enumerate(answers.T)})
        found["predicted"] = [str(number) for number in answers.argmax(axis=1)]
        return found

    estimates = {}
    for case in dict.fromkeys(name.rsplit("/", 1)[0] for name in tables):
        reference = frame(tables[f"{case}/answers"])
        reference["right"] = [str(number) for number in tables[f"{case}/labels"]]
        current = tables[f"{case}/current"]  # shape (grades, answers, classes)
        estimator = nannyml.CBPE(
            y_pred_proba={str(number): f"p{number}" for number in range(current.shape[2])},
            y_pred="predicted",
            y_true="right",
            problem_type="classification_multiclass",
            metrics=["accuracy"],
            chunk_size=current.shape[1],
        )
        estimator.fit(reference)
        found = estimator.estimate(frame(current.reshape(-1, current.shape[2])))
        estimates[case] = found.filter(period="analysis").to_df()["accuracy", "value"].tolist()
    return estimates


def _river(tables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    from river.drift import ADWIN

    def first_alarm(errors: np.ndarray) -> int | None:
        detector = ADWIN()
        for number, error in enumerate(errors.tolist(), start=1):
            detector.update(error)
            if detector.drift_detected:
                return number
        return None

    return {case: [first_alarm(stream) for stream in streams] for case, streams in tables.items()}


JUDGES: dict[str, Callable[[Mapping[str, np.ndarray]], dict[str, Any]]] = {
    "nannyml": _nannyml,
    "river": _river,
}


def main() -> None:
    """Judge every case."""
    warnings.simplefilter("ignore")
    with np.load(sys.argv[2]) as file:
        tables = {name: file[name] for name in file.files}
    sys.stdout.write(json.dumps(JUDGES[sys.argv[1]](tables)))


if __name__ == "__main__":
    main()
