"""What the hub remembers: narrow store protocols, their SQLite implementation, and the blob folder."""
