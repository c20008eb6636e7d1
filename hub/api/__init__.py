"""The hub's HTTP API, version 1."""
