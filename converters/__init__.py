"""Files in, files out: from a dataset and a trained model to the variants and the bundle that devices run."""
