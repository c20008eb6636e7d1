"""The rules: what is found in what the hub knows of drift, rollouts, devices and itself."""
