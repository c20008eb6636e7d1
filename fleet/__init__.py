"""The shared, pure core: what hub and devices agree on, and how a fleet is judged.

Nothing in this package does input or output, reads a clock or draws a random number; times and
seeds are arguments. The import contract in ``pyproject.toml`` keeps it so.
"""
