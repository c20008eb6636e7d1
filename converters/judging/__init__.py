"""Judging: whether a variant does what its source does, and what it costs.

::

    prepare.py           which samples calibrate and which judge, and how the source does on these
    variant.py           one variant: built, run, judged
      evaluate.py          how good its answers are
      gate.py              whether that is good enough, and near enough to the source's
      embedding.py         whether its embedding is
    mixed_precision.py   the fewest layers in float for int8 to pass; sensitivity.py: which lose most
    latency.py           how long an answer takes
    golden.py            the self-test that devices will run
"""
