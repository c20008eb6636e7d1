"""The registry: datasets by digest, and the versions of models from training to release."""
