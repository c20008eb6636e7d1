"""Labels as counts: of the answers of each confidence, how many were labelled, and how many of those right.

Together with the confidence of all answers, labels of few say more than by themselves, see
`fleet.quality.powered`. Cells are those of the feature ``output.confidence`` in the version's reference
profile. Answers without a confidence are labelled in no cell, so the cells may add up to less than a window's
``labelled`` and ``correct``, never to more. Adding is by cell; the order does not matter.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fleet.protocol.errors import InvalidMessage
from fleet.protocol.fields import Count

MAX_CELLS = 256

LabelledCells = Annotated[
    dict[Annotated[int, msgspec.Meta(ge=0, lt=MAX_CELLS)], tuple[Count, Count]],
    msgspec.Meta(max_length=MAX_CELLS),
]
"""By the number of the cell how many answers were labelled, and how many of them were right."""


class Labels(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a window says of labels beside how many there were.

    Attributes:
        by_confidence: See `LabelledCells`.
        unknown: How often labels came for a prediction that the device does not know, or not any more.
    """

    by_confidence: LabelledCells = {}
    unknown: Count = 0

    def merged(self, other: Labels) -> Labels:
        """Return the labels of both."""
        cells = dict(self.by_confidence)
        for cell, (labelled, correct) in other.by_confidence.items():
            before = cells.get(cell, (0, 0))
            cells[cell] = (before[0] + labelled, before[1] + correct)
        return Labels({cell: cells[cell] for cell in sorted(cells)}, self.unknown + other.unknown)

    def contradiction(self, labelled: int, correct: int) -> str | None:
        """Return why they cannot be of a window; None if they can.

        Args:
            labelled: Of the window.
            correct: Likewise; at most as many.
        """
        known = sum(number for number, _ in self.by_confidence.values())
        right = sum(number for _, number in self.by_confidence.values())
        if any(right_ones > number for number, right_ones in self.by_confidence.values()):
            return "more answers of a confidence are correct than are labelled"
        if right > correct or known - right > labelled - correct:
            return f"{right} of {known} labels by confidence are right, {correct} of {labelled} in all"
        return None

    def check(self, cells: int | None) -> None:
        """Check that they are in the layout of a version.

        Args:
            cells: How many the confidence has in its reference profile; None if it is not there.

        Raises:
            InvalidMessage: They are not.
        """
        last = max(self.by_confidence, default=None)
        if last is not None and (cells is None or last >= cells):
            raise InvalidMessage(f"The window has labels in cell {last} of the confidence; there is none.")


NO_LABELS = Labels()
