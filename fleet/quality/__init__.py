"""How good answers are: without labels, with few, and with late ones.

::

    calibration.py    how often an answer of a confidence is right, measured when the model is built
    cbpe.py           the accuracy without any label; atc.py: a second opinion
    powered.py        the accuracy from few labels and many answers; interval.py: how sure both are
    concept.py        whether answers are wrong more often than they were
    doubts.py         when none of it must be believed
    verdict.py        all that can be said, from counts
"""
