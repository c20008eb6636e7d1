"""Lets ``python -m hub`` stand for ``muster``."""

from hub.cli.main import main

if __name__ == "__main__":
    main()
