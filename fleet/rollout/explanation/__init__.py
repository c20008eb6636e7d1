"""Why a rollout is where it is.

::

    explanation    in a sentence or two, and what makes it go on
    groups         who holds it up, who did not follow: devices by reason
    reasons        the reasons, and how they are said
    silence        canaries and controls of which a gate that cannot decide hears nothing
    choices        what an operator can do
"""
