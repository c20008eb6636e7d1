"""The gate of a stage: from counts of canaries and controls to bets, a verdict and its sentence."""
