"""The life of a model on this device: from an order to a committed version, or back.

::

    models.py        all models: orders in, states out
    shell.py         one model: what its machine says is written down (store.py), then carried out
      machine.py       the table; terms.py what it is about, actions.py what a row does, diagram.py draws it
      work.py          what each phase does between two events of the machine
        choice.py        which of the variants, by measurements.py
        slots.py         installed versions on disk; opening.py brings them into memory
        gate.py          when a version may be swapped in: hold.py, maintenance.py and readiness.py are asked
        shadow.py        beside the active version: comparison.py counts how they differ
        trial.py         on probation, and its watchdog; footprint.py is the memory that it takes
"""
