"""The agent as a service of the system: its unit, its account, its folders."""
