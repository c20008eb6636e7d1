"""Alerts: what is wrong in the fleet, since when, on which devices, and which command acts on it."""
