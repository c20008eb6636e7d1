"""Muster's own conversion: builds the wanted variants and judges each on the held-out samples."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from benchmarks.peers.driver import CALIBRATION, HELD_OUT, SOURCE, drive


def convert(folder: Path, out: Path, what: str) -> None:
    """Convert to the targets of ``what``, separated by commas.

    Of a variant that is refused there is only the reason: there is nothing to measure, which is a miss.
    """
    from converters.convert import convert as convert_model

    task: Literal["classification", "reconstruction"]
    task = "reconstruction" if folder.name == "autoencoder" else "classification"
    conversion = convert_model(
        folder / SOURCE,
        targets=what.split(","),
        samples=folder / CALIBRATION,
        held_out=folder / HELD_OUT,
        task=task,
    )
    for variant in conversion.report.variants:
        if variant.packed:
            suffix = Path(conversion.file_names[variant.name]).suffix
            (out / f"{variant.name}{suffix}").write_bytes(conversion.models[variant.name])
        else:
            (out / f"{variant.name}.refused").write_text(variant.reason)


if __name__ == "__main__":
    drive(convert)
