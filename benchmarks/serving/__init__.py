"""What `benchmarks.agent` sets side by side: models, servers, load, and what a server costs."""
