"""Rollouts simulated: the hub's own engine, driven by a fleet that exists as columns of numbers only."""
