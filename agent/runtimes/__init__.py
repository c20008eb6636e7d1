"""Inference runtimes behind one protocol, each imported only when a device uses it."""
