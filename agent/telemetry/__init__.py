"""Telemetry: counted per version in windows, kept in a durable outbox, sent until the hub has it."""
