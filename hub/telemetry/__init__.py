"""What windows say, added up: read from the records, summed over time, and looked at for drift.

What is too old `hub.retention` forgets.

::

    counting.py       the telemetry pass, step by step
      reading.py        from records to windows that count; letters.py: those that do not
      sums.py           by device, by cohort (cohorts.py) and by time
      looks.py          drift, once enough was counted
      noised.py         windows with noise, added up apart
      since_start.py    for metrics of this process
"""
