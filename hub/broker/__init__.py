"""The MQTT broker that the hub runs: accounts, permissions, and the broker's process.

::

    accounts.py       who may connect; permissions.py: and use which topics
    kinds.py          which brokers there are
      mosquitto.py      the one in earnest: found, and configured
      embedded.py       amqtt, for development: behind door.py, with plugins.py
    process.py        one of them as a child process; probe.py: whether it lets an account in
    kept.py           that process as long as the hub runs
"""
