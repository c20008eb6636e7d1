"""Alerts on the hub: looking, keeping what is found, and telling receivers."""
