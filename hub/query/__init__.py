"""What engineers ask of the fleet: devices, series, drift, comparisons. It changes nothing."""
