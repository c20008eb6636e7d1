"""Drift: how far what a model sees and says is from what it was released with, by counts alone.

::

    features.py        what is watched: of answers, of inputs (inputs.py), of an embedding (embedding.py)
    profile.py         the reference, and the counts of a window; cells.py counts many values at once
    encoding.py        how counts travel; batch_encoding.py and batch.py: of many windows, see matrix.py
    metrics.py         how far two histograms are apart, for people; transport.py: in units of the reference
    splits.py          what is normal for each share of values, by allowance.py; shapes.py: bets on them all
    evidence.py        that counts are not normal, as an e-value
    alarms.py          from the evidence of look after look; fleet_alarms.py: over all devices, and
                       affected.py what those share
"""
