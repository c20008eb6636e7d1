"""What a plan's gate can prove, forecast from what devices do now, before anything moves.

::

    habits.py      what devices do now: answers, shares, how far devices differ
    expected.py    the evidence that so many devices come to on average if they go on like that
    outlook.py     what the gate makes of it: how likely a PASS is, when, from how many devices on
    chance.py      how likely a verdict is, given the evidence that is to be expected
    harm.py        versions that do harm, for asking how much of it would be found
    forecast.py    all of it, for each judged stage and metric of a rollout
    sentences.py   what people are told

A harmless version is assumed to do on canaries what the versions that run now do. Nothing here decides: the
forecast tells operators what they may want to change before they start.
"""
