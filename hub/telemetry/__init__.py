"""What windows say, added up: read from the records, summed over time, looked at for drift, and forgotten."""
