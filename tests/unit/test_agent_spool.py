"""The spool of samples: who may read it, and that what is gone is gone from the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.capture.spool import SPOOL_FILE, Spool
from fleet.protocol.samples import Reason, Sample, tensors_of

PIXELS = np.random.default_rng(7).random((1, 64))


def put(spool: Spool, model: str = "doors") -> None:
    spool.put(Sample(1.0, model, 1, "0" * 64, Reason.RANDOM, tensors_of({"x": PIXELS})), day=1, spent_bytes=1)


def on_disk(folder: Path) -> bool:
    """Return whether any file still has the input."""
    return any(PIXELS.tobytes()[:64] in file.read_bytes() for file in folder.iterdir())


def test_only_the_agents_account_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    put(spool)
    files = list(tmp_path.glob(f"{SPOOL_FILE}*"))
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    spool.close()


def test_what_is_deleted_is_not_on_the_disk_any_more(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    put(spool)
    assert on_disk(tmp_path)
    spool.forget(1)
    assert not on_disk(tmp_path)
    put(spool)
    spool.keep_models(["windows"])
    assert not on_disk(tmp_path)
    spool.close()


def test_another_redaction_begins_with_nothing(tmp_path: Path) -> None:
    for redaction, kept in (("", 0), ("", 1), ("faces", 0), ("faces", 1), ("", 0)):
        spool = Spool(tmp_path, 10**6, redaction)
        assert len(spool) == kept
        assert on_disk(tmp_path) == bool(kept)
        if not kept:
            put(spool)
        spool.close()
