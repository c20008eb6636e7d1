"""What engineers ask of the fleet: devices, series, drift, comparisons. It changes nothing.

::

    times.py        which span of time, in which steps
    devices.py      which devices a target means
    sums.py         what they did then, added up by group; metrics.py reads numbers from a sum
      series.py       metrics over time
      drift.py        features over time, and histograms beside their references
      comparison.py   two sides of the same time
      quality.py      how good answers are
    looks.py        the last looks at drift;  noised.py  what noised counts show;  timeline.py  one device
    nothing.py      why an answer is empty;   tables.py  answers as CSV and Parquet
"""
