"""How good answers are: without labels, with few, and with late ones."""
