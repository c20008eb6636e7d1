"""Counts that leave a device with noise on them: differential privacy for whoever asks a model."""
