"""Judging: whether a variant does what its source does, and what it costs."""
