"""The life of a model on this device: from an order to a committed version, or back."""
