"""Drift: how far what a model sees and says is from what it was released with, by counts alone."""
