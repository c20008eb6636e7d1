"""Staged rollouts: plans, targeting, the engine that decides, and the gates that judge."""
