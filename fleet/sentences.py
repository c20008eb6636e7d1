"""Whole sentences of what people say: a reason that somebody typed stands beside sentences of ours."""

from __future__ import annotations

_ENDS = (".", "!", "?", "…")


def whole(text: str) -> str:
    """Return a text with the end of a sentence."""
    return text if text.endswith(_ENDS) else f"{text}."


def by_whom(by: str, reason: str) -> str:
    """Return the end of a sentence that tells who did something, and why if they said so."""
    return whole(f"{by}: {reason}" if reason else by)
