"""What each layer loses in int8: a bar for each, as long as the noise that it alone adds to the answers.

The noise is root mean square against root mean square of the answers, 10^(-SQNR / 20), so that half as much
is a bar half as long; decibels stand in the table. How both are measured: `converters.judging.sensitivity`.
"""

from __future__ import annotations

from collections.abc import Sequence

from converters.judging.sensitivity import LayerError
from converters.judging.variant import VariantReport
from converters.page.bars import Bar, bars
from converters.page.markup import Markup, element
from converters.page.tables import DASH, table

MAX_BARS = 30


def layers(errors: Sequence[LayerError], variants: Sequence[VariantReport]) -> Markup:
    """Return the plot and the table.

    Args:
        errors: At least one, the worst first.
        variants: They say which layers stayed float.
    """
    kept = {name: each.name for each in variants for name in each.kept_float}
    rows = [_bar(error, kept.get(error.name)) for error in errors[:MAX_BARS]]
    caption = "Noise in the model's answers with this layer alone quantized, against the answers themselves."
    if len(errors) > MAX_BARS:
        caption += f" The worst {MAX_BARS} of {len(errors)} layers; the table has all."
    as_table = table(
        ["layer", "operator", "alone, dB", "all before it too, dB", "stayed float in"],
        (
            [e.name, e.operator, _decibels(e.isolated_db), _decibels(e.cumulative_db), kept.get(e.name, DASH)]
            for e in errors
        ),
        numbers=(2, 3),
    )
    return element(
        "figure",
        bars(rows, title="Noise of each layer in int8", axis="noise in the answers, %"),
        element("figcaption", caption),
        element("details", element("summary", "as a table: signal to quantization noise"), as_table),
    )


def _bar(error: LayerError, kept_in: str | None) -> Bar:
    percent = 0.0 if error.isolated_db is None else 100 * 10 ** (-error.isolated_db / 20)
    shown = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    text = f"{shown} %" + (", stays float" if kept_in else "")
    return Bar(error.name, percent, text, marked=kept_in is not None)


def _decibels(value: float | None) -> str:
    return "no noise" if value is None else f"{value:.1f}"
