"""Bundles: packed, written, read, verified and sent."""
