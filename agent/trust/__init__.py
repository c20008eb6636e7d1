"""What the device believes: the image repository (which bundles exist) and the director (what it runs)."""
