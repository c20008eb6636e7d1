"""The device's own hold on updates: a file in the state folder, so that it outlives every restart.

Whoever may write to the folder holds and releases with ``muster-agent hold`` and ``muster-agent release``.
The file holds what is said about it; that it is there is what counts, whatever it holds.
"""

from __future__ import annotations

from pathlib import Path

from agent import durable

FILE_NAME = "updates.held"
MAX_REASON_LENGTH = 200


def hold(state: Path, reason: str = "") -> None:
    """Let no version be swapped in until `release`.

    Raises:
        StorageError: It cannot be written down.
    """
    durable.write_file(state / FILE_NAME, reason[:MAX_REASON_LENGTH].encode("utf-8", "replace"))


def release(state: Path) -> None:
    """Let versions be swapped in again.

    Raises:
        StorageError: It cannot be written down; updates stay held.
    """
    durable.remove_file(state / FILE_NAME)


def held(state: Path) -> str | None:
    """Return what stands against a swap, a sentence; None if updates are not held here."""
    try:
        with (state / FILE_NAME).open("rb") as stream:
            reason = stream.read(4 * MAX_REASON_LENGTH).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:  # it cannot be told that they are not held
        reason = f"{FILE_NAME} cannot be read ({error.strerror})"
    said = "".join(letter for letter in reason if letter.isprintable())[:MAX_REASON_LENGTH]
    return f"Updates are held on the device: {said}." if said else "Updates are held on the device."
