"""The converters that are compared, each run in an environment of its own by `benchmarks.peers.driver`."""
