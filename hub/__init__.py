"""The server's shell: registry, training, signing, publishing, ingest, rollouts, API and command line."""
