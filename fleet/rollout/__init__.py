"""Staged rollouts: the engine that decides, with what it is told, what it knows and what it asks.

::

    engine.py        step(state, event, now) -> (state, commands)
    operators.py     what operators say: done or refused
    rules.py         by which a rollout goes on without an operator, applied after every event
    stages.py        how a stage begins and ends; endings.py: how a rollout does
    events.py        what happens to a rollout, and what it wants done
    state/           what is kept of a rollout, its devices in columns; the working copy of one step
    gates/           canaries beside controls: from evidence to a verdict and its sentence
    plans/           what an operator asks for: stages and gates, how they are read and what is refused
    forecast/        what the gate will be able to prove, told before anything moves
    explanation/     why a rollout is where it is, who holds it up, what an operator can do
    the other files  one subject each: whose turn it is, orders and what becomes of them, claims, …

Plans and gates know nothing of state, and state nothing of the engine.
"""
