"""Rollouts on the hub: drawn up, stepped through and stored; what decides is `fleet.rollout`.

::

    shell.py        what the rest of the hub calls: create, preview, say a word, roll back, go on
    drafting.py     a plan becomes a rollout; members.py: whom it means, inputs.py: whose inputs compare
    preview.py      the dry run; forecast.py what the gate will be able to prove
    claims.py       which devices a rollout gets beside the others, and the steps of its start
    stepping.py     through the engine, and the orders that follow; detours.py for those that cannot be given
    advancing.py    what came in since (events.py), who came to match (joiners.py), and the time
    retreat.py      a rollback by command; proven.py: to which version
    absence.py      the hub was away;  explaining.py, ways_out.py  what people are told
"""
