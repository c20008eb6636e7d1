"""Telemetry: counted per version in windows, kept in a durable outbox, sent until the hub has it.

::

    window.py       answers are counted, many at once: block.py holds them until then
    reception.py    what was counted in other processes
    recorder.py     into the outbox, whatever the disk does; incidents.py: what people may have to know
    outbox.py       until the hub has it; bodies.py: what is in it, database.py: its file
    noise.py        counts go into it with noise, where that is wanted
    sender.py       again and again, no faster than rate.py lets it
"""
