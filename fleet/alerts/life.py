"""The life of an alert: a pure step from what was, and what is found now.

::

             found              found for `hold_s`            not found for `clear_after_s`
    (none) ────────→ PENDING ─────────────────────→ FIRING ───────────────────────────────→ RESOLVED
                        │ not found                                                            │ found
                        ↓                                                                      ↓
                     (none)                                                          another episode begins

Only time in which somebody looked counts: after a hub was off, a finding must hold, or be gone, for the whole
time anew. So a hub that comes back neither fires on what it missed nor takes its own absence for a recovery.
"""

from __future__ import annotations

import msgspec

from fleet.alerts.alert import Alert, Finding, State


def step(
    alert: Alert | None, found: Finding | None, now_s: float, *, watched_since_s: float, clear_after_s: float
) -> Alert | None:
    """Return what becomes of an alert at a look.

    Args:
        alert: The newest episode of a key; None if there is none.
        found: The finding of that key; None if it does not hold now.
        now_s: Unix seconds.
        watched_since_s: Since when there was no gap between looks.
        clear_after_s: How long a finding must be gone.

    Returns:
        The alert after the look: unchanged, in its next state, or of another episode. None if there is none.
    """
    if alert is None or alert.state is State.RESOLVED:
        if found is None:
            return alert
        return _fired(Alert(found.matter, State.PENDING, now_s), found, now_s, watched_since_s)
    if found is None:
        return _missed(alert, now_s, watched_since_s, clear_after_s)
    current = msgspec.structs.replace(alert, matter=found.matter, absent_since_s=None)
    return _fired(current, found, now_s, watched_since_s)


def _fired(alert: Alert, found: Finding, now_s: float, watched_since_s: float) -> Alert:
    """Make a pending alert that held long enough a firing one."""
    held_s = now_s - max(alert.started_at_s, watched_since_s)
    if alert.state is State.FIRING or held_s < found.hold_s:
        return alert
    return msgspec.structs.replace(alert, state=State.FIRING, fired_at_s=now_s)


def _missed(alert: Alert, now_s: float, watched_since_s: float, clear_after_s: float) -> Alert | None:
    if alert.state is State.PENDING:
        return None
    absent_since_s = now_s if alert.absent_since_s is None else alert.absent_since_s
    if now_s - max(absent_since_s, watched_since_s) < clear_after_s:
        return msgspec.structs.replace(alert, absent_since_s=absent_since_s)
    return msgspec.structs.replace(
        alert, state=State.RESOLVED, absent_since_s=absent_since_s, ended_at_s=now_s, silence=None
    )
