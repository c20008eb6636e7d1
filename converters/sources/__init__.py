"""The kinds of trained models that a conversion takes in."""
