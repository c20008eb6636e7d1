"""What devices fetch from the hub over MQTT: chunks of blobs and trust metadata files."""
