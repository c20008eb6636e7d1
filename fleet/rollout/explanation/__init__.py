"""Why a rollout is where it is.

::

    explanation    in a sentence or two, and what makes it go on
    groups         who holds it up, who did not follow: devices by reason
    reasons        the reasons, and how they are said
    choices        what an operator can do
"""
