"""What travels between hub and devices: names, topics, messages, manifests, assignments, errors."""
