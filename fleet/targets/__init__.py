"""The target language: which devices are meant, as search and rollouts say it."""
