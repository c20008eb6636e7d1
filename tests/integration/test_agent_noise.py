"""A real agent whose counts get noise: nobody on the network sees an exact one."""

from __future__ import annotations

from fleet.privacy.windows import numbers_of
from fleet.protocol.deployment import DeploymentState as S
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.wishes import Wishes
from tests.support.agent_bundles import build
from tests.support.agent_device import SAMPLE
from tests.support.agent_fixtures import (  # noqa: F401 - pytest finds fixtures by name
    MakeDevice,
    make_device_fixture,
    peer_fixture,
)
from tests.support.agent_peer import Peer
from tests.support.waiting import eventually


def noised(peer: Peer) -> list[NoisedWindow]:
    """Return the noised windows that came."""
    return [record.body for record in peer.records if isinstance(record.body, NoisedWindow)]


def test_the_owner_asks_for_noise_and_the_operator_for_more(peer: Peer, make_device: MakeDevice) -> None:
    bundle = build(1)
    peer.release(bundle)
    device = make_device(count_noise_epsilon=2.0)
    peer.assign(device.id, (bundle, "d-1"))
    device.start()
    peer.wait_report("d-1", S.SUCCEEDED)
    assert device.infer(SAMPLE).status == 200
    eventually(lambda: len(noised(peer)) > 2, "windows come whatever happens")
    assert {window.epsilon for window in noised(peer)} == {2.0}
    assert {len(numbers_of(window)) for window in noised(peer)} == {len(bundle.manifest.reference.features)}
    peer.assign(device.id, (bundle, "d-1"), wishes=Wishes(count_noise=500))
    eventually(lambda: 0.5 in {window.epsilon for window in noised(peer)}, "the operator's word is in force")
    eventually(lambda: peer.hellos[-1].capabilities.count_noise_epsilon == 0.5, "the device says so")
    assert peer.hellos[-1].capabilities.noises_counts
    assert peer.windows() == []
