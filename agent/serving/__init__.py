"""The local inference API. It translates a protocol; which model answers is `agent.hosting`'s concern."""
