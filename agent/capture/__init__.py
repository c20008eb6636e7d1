"""Capturing samples for labelling: what is chosen, how much, redaction, the spool, and sending."""
