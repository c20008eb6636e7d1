"""Datasets and samples: what models are trained, calibrated and judged with."""
