"""The command line of hub and operators: ``muster``."""
