"""What is kept of a rollout: the rollout, its devices in columns, and the working copy of one step."""
