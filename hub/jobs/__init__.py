"""Work that is heavy or not to be trusted, in a process of its own beside the hub."""
