"""The MQTT broker that the hub runs: accounts, permissions, and the broker's process."""
