"""Requests whose tensors are in memory that the client can change while they are answered."""

from __future__ import annotations

import fcntl
import os

import numpy as np
import pytest

from agent.serving.fast_frames import Described, Place, pack_head
from agent.serving.fast_plan import plan_request
from agent.serving.fast_regions import Regions
from fleet.protocol.manifest import Signature, Tensor


@pytest.mark.parametrize(
    ("dtype", "by_own", "by_others"),
    [
        ("int64", True, True),
        ("int32", True, True),
        ("uint16", True, True),
        ("uint8", False, True),
        ("float32", False, True),
    ],
)
@pytest.mark.parametrize("are_trusted", [True, False])
def test_what_a_runtime_reads_twice_is_out_of_the_clients_reach(
    dtype: str, by_own: bool, by_others: bool, are_trusted: bool
) -> None:
    is_copied = by_own if are_trusted else by_others
    signature = Signature(
        inputs=(Tensor("given", dtype, (-1,)),), outputs=(Tensor("score", "float32", (-1,)),), task="anomaly"
    )
    size_bytes = 4 * np.dtype(dtype).itemsize
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        regions = Regions(1 << 20, are_trusted=are_trusted)
        number, _ = regions.map(descriptor)
        head = pack_head([Described("given", dtype, (4,), Place.REGION, number, 0, size_bytes)])
        plan = plan_request(head, 0, signature, regions)
        for _ in range(2):
            os.pwrite(descriptor, np.full(4, 3, dtype).tobytes(), 0)
            given = plan.read(bytearray(64), 0)["given"]
            os.pwrite(descriptor, np.full(4, 7, dtype).tobytes(), 0)
            assert given.tolist() == ([3] * 4 if is_copied else [7] * 4)
    finally:
        os.close(descriptor)
