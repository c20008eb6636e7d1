"""The command line of hub and operators: ``muster``.

::

    main.py         where it starts;  app.py  the tree of commands, and what becomes of errors
    <subject>.py    its commands: alerts, datasets, devices (with remote, tags, timeline and privacy),
                    fleet (fleet_*), hub, models (convert), rollouts (rollout_*), samples, simulate, demo
    client.py       asks the hub;  answers.py, output.py, columns.py  how answers are given out
    questions.py    before what cannot be taken back
    the others      how one thing is shown: boards, conversions, looks, measurements, pictures, progress
"""
