"""Which variant is chosen, what is offered to a device, and what a class of devices agrees on."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.assignment import VariantPolicy as P
from fleet.protocol.errors import Cause, InvalidMessage, VariantUnsupported
from fleet.protocol.messages import Capabilities
from fleet.protocol.records import Measurement
from fleet.variants import Offer, Peers, agreed, check_measurement, choose, class_of, offer, summaries
from tests.support.agent_bundles import build
from tests.support.measurements import DIGEST, HARDWARE, RUNTIMES, candidate, measurement

WRONG = Cause("self_test_failed", "Answers differ.")
ONNX, TFLITE = "onnx-fp32", "tflite-fp32"
MANIFEST = build(1).manifest
DEVICE = Capabilities("0.1.0", "x86_64", RUNTIMES, 2**32, 2**32, HARDWARE)
NAMES = {ONNX, TFLITE}
TFLITE_WINS = measurement(candidate(ONNX, 9.0, cpu_us=4.0), candidate(TFLITE, 5.0, cpu_us=6.0))
ONNX_WINS = measurement(candidate(ONNX, 4.0), candidate(TFLITE, 5.0))


def test_each_policy_compares_its_own_measure() -> None:
    candidates = [
        candidate("fast", 5.0, cpu_us=20.0, size_bytes=300),
        candidate("small", 9.0, cpu_us=9.0, size_bytes=100),
        candidate("cool", 8.0, cpu_us=4.0, size_bytes=200),
    ]
    chosen = {policy: choose(candidates, policy) for policy in P}
    assert {policy: best.variant for policy, best in chosen.items() if best} == {
        P.FIRST: "fast",
        P.FASTEST: "fast",
        P.SMALLEST: "small",
        P.COOLEST: "cool",
    }


def test_what_failed_is_not_chosen_however_fast_it_is() -> None:
    failed = candidate("fast", 1.0, cause=WRONG)
    assert choose([failed, candidate("slow", 9.0)], P.FASTEST) == candidate("slow", 9.0)
    assert choose([failed], P.FASTEST) is None
    assert choose([], P.FASTEST) is None


@pytest.mark.parametrize(("median_us", "winner"), [(102.9, "small"), (103.1, "large")])
def test_within_the_noise_the_smaller_file_wins(median_us: float, winner: str) -> None:
    large, small = candidate("large", 100.0, size_bytes=2000), candidate("small", median_us, size_bytes=1000)
    best = choose([large, small], P.FASTEST)
    assert best is not None
    assert best.variant == winner


def test_a_device_is_offered_the_first_variant_unless_the_policy_leaves_a_choice() -> None:
    assert offer(MANIFEST, DEVICE, P.FIRST, own=None, others=Peers()) == Offer(ONNX)
    assert offer(MANIFEST, DEVICE, P.FASTEST, own=None, others=Peers()) == Offer(ONNX, (TFLITE,), P.FASTEST)


@pytest.mark.parametrize(
    "device",
    [
        msgspec.structs.replace(DEVICE, hardware=""),
        msgspec.structs.replace(DEVICE, runtimes={"onnxruntime": "1.31.1"}),
    ],
    ids=["an agent that cannot choose", "only one fits"],
)
def test_a_device_without_a_choice_is_offered_none(device: Capabilities) -> None:
    assert offer(MANIFEST, device, P.FASTEST, own=None, others=Peers()) == Offer(ONNX)


def test_a_device_that_can_run_nothing_is_offered_nothing() -> None:
    device = msgspec.structs.replace(DEVICE, runtimes={})
    with pytest.raises(VariantUnsupported, match="tflite-fp32"):
        offer(MANIFEST, device, P.FASTEST, own=None, others=Peers())


def test_the_smallest_file_comes_first_and_needs_no_measurement() -> None:
    sizes = {variant.name: variant.model_file.size_bytes for variant in MANIFEST.variants}
    first, second = sorted(sizes, key=lambda name: sizes[name])
    offered = offer(MANIFEST, DEVICE, P.SMALLEST, own=TFLITE_WINS, others=Peers([TFLITE_WINS] * 5))
    assert offered == Offer(first, (second,), P.SMALLEST)


def test_who_measured_is_offered_first_what_it_chose_by_the_policy_of_now() -> None:
    for policy, winner, other in ((P.FASTEST, TFLITE, ONNX), (P.COOLEST, ONNX, TFLITE)):
        offered = offer(MANIFEST, DEVICE, policy, own=TFLITE_WINS, others=Peers([ONNX_WINS] * 9))
        assert offered == Offer(winner, (other,), policy)


def test_the_winner_so_far_comes_first_and_is_offered_alone_when_three_agree() -> None:
    offered = [
        offer(MANIFEST, DEVICE, P.FASTEST, own=None, others=Peers([TFLITE_WINS] * n)) for n in (1, 2, 3)
    ]
    assert offered[:2] == [Offer(TFLITE, (ONNX,), P.FASTEST)] * 2
    assert offered[2] == Offer(TFLITE)


def test_a_class_is_added_up_once_however_many_devices_ask() -> None:
    peers = Peers([TFLITE_WINS] * 3)
    of, names = class_of(DEVICE), frozenset(NAMES)
    assert peers.votes(of, P.FASTEST, names) is peers.votes(of, P.FASTEST, names)
    assert peers.votes(of, P.FASTEST, names) == {TFLITE: 3}
    assert peers.votes(of, P.COOLEST, names) == {ONNX: 3}
    assert peers.votes(of, P.FASTEST, frozenset({ONNX})) == {}


def test_other_hardware_and_other_runtimes_have_no_vote() -> None:
    other = [measurement(*TFLITE_WINS.candidates, hardware="Board 5")] * 3
    updated = [msgspec.structs.replace(TFLITE_WINS, runtimes={**RUNTIMES, "litert": "2.2.0"})] * 3
    offered = offer(MANIFEST, DEVICE, P.FASTEST, own=updated[0], others=Peers([*other, *updated]))
    assert offered == Offer(ONNX, (TFLITE,), P.FASTEST)


def test_a_class_agrees_by_nine_of_ten() -> None:
    assert agreed([TFLITE_WINS] * 9 + [ONNX_WINS], P.FASTEST, NAMES) == TFLITE
    assert agreed([TFLITE_WINS] * 8 + [ONNX_WINS], P.FASTEST, NAMES) is None
    assert agreed([TFLITE_WINS] * 3, P.FASTEST, {ONNX}) is None


def test_a_summary_says_what_each_class_measured() -> None:
    failed = measurement(candidate(ONNX, 7.0), candidate(TFLITE, 0.0, cause=WRONG))
    other = measurement(*ONNX_WINS.candidates, hardware="Board 5")
    four, five = summaries([TFLITE_WINS, failed, other])
    assert (four.device.hardware, four.devices, five.device.hardware) == (HARDWARE, 2, "Board 5")
    onnx, tflite = four.variants
    assert (onnx.devices, onnx.passed, onnx.median_us) == (2, 2, 8.0)
    assert (tflite.devices, tflite.passed, tflite.median_us) == (2, 1, 5.0)
    assert four.agreed == {P.FASTEST: None, P.COOLEST: None}


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(TFLITE_WINS, manifest_sha256="cd" * 32),
        msgspec.structs.replace(TFLITE_WINS, chosen=ONNX),
        msgspec.structs.replace(TFLITE_WINS, chosen=None),
        msgspec.structs.replace(TFLITE_WINS, chosen="another"),
        msgspec.structs.replace(TFLITE_WINS, candidates=TFLITE_WINS.candidates * 2),
    ],
    ids=["another bundle", "not the best", "none though one passed", "not tried", "one variant twice"],
)
def test_a_measurement_that_contradicts_itself_is_refused(wrong: Measurement) -> None:
    check_measurement(TFLITE_WINS, DIGEST)
    with pytest.raises(InvalidMessage):
        check_measurement(wrong, DIGEST)
