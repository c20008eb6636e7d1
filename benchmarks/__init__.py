"""Benchmarks: Muster beside its peers, in one run on one machine. Not part of the installed package.

Each prints tables and then a line for each aim, see `benchmarks.aims`. A shared machine is noisy, so what
counts is the ratio to a peer that was measured in turns with ours, by the median.
"""
