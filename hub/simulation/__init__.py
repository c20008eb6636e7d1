"""Rollouts simulated: the hub's own engine, driven by a fleet that exists as columns of numbers only.

::

    scenario.py      what the fleet is like and what happens; scenario_file.py reads one, ready.py has some
    rollout.py       one run: a second of the hub after the other
      devices.py       the fleet, in columns
      installs.py      what devices do with orders, and report of it
      telemetry.py     the windows that they send
      delivery.py      what of both reaches the hub, and when; calendar.py keeps it until then
      keeping.py       where the hub's steps are kept
      account.py       what is remembered of the run
    outcome.py       what it came to, and many of them; report.py tells people
"""
