"""Rollouts on the hub: drawn up, stepped through and stored; what decides is `fleet.rollout`."""
