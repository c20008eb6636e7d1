"""Asks Evidently or NannyML, by their defaults, which columns drifted; in the environment of one of them.

::

    python drift_judge.py (evidently | nannyml) cases.npz

The file has two tables for each case, ``<case>/reference`` and ``<case>/current``, whose columns stand for
themselves. Columns of whole numbers are categories. It prints JSON: for each case a list of verdicts.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd


def _evidently(reference: pd.DataFrame, current: pd.DataFrame) -> list[bool]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = list(reference.columns)
    kinds = {"categorical_columns" if reference[names[0]].dtype == object else "numerical_columns": names}
    sides = [Dataset.from_pandas(side, DataDefinition(**kinds)) for side in (current, reference)]
    found = Report([DataDriftPreset()]).run(*sides).dict()["metrics"]
    verdicts = {}
    for metric in found:
        config = metric["config"]
        if config["type"].endswith("ValueDrift"):
            by_p_value = "p_value" in config["method"]
            value, threshold = float(metric["value"]), float(config["threshold"])
            verdicts[config["column"]] = value < threshold if by_p_value else value >= threshold
    return [bool(verdicts[name]) for name in names]


def _nannyml(reference: pd.DataFrame, current: pd.DataFrame) -> list[bool]:
    import nannyml

    names = list(reference.columns)
    calculator = nannyml.UnivariateDriftCalculator(column_names=names, chunk_size=len(current))
    calculator.fit(reference)
    alerts = calculator.calculate(current).filter(period="analysis").to_df()
    return [bool(alerts[name, "jensen_shannon", "alert"].any()) for name in names]


JUDGES: dict[str, Callable[[pd.DataFrame, pd.DataFrame], list[bool]]] = {
    "evidently": _evidently,
    "nannyml": _nannyml,
}


def _frame(table: np.ndarray) -> pd.DataFrame:
    names = [f"column {number}" for number in range(table.shape[1])]
    frame = pd.DataFrame(table, columns=names)
    return frame.astype(str).astype(object) if np.issubdtype(table.dtype, np.integer) else frame


def main() -> None:
    """Judge every case."""
    warnings.simplefilter("ignore")
    judge, tables = JUDGES[sys.argv[1]], np.load(sys.argv[2])
    cases = dict.fromkeys(name.rsplit("/", 1)[0] for name in tables.files)
    verdicts: dict[str, Any] = {
        case: judge(_frame(tables[f"{case}/reference"]), _frame(tables[f"{case}/current"])) for case in cases
    }
    sys.stdout.write(json.dumps(verdicts))


if __name__ == "__main__":
    main()
