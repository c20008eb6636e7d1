"""Training: estimators by name, and a process of its own that turns a dataset into a bundle."""
