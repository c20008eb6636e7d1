"""Devices that enrol at once share versions of the accounts file; each is let in once it is told so."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

from hub.broker.accounts import hash_password, new_password
from hub.broker.kept import KeptBroker
from hub.broker.probe import lets_in
from hub.home import create_home, open_home
from hub.settings import Settings
from hub.store.rows import NewDevice
from tests.support.brokers import HOST, require_mosquitto
from tests.support.stores import CAPABILITIES

DEVICES = 30


def test_each_of_many_is_let_in_as_soon_as_it_is_enrolled(tmp_path: Path) -> None:
    require_mosquitto()
    create_home(tmp_path / "hub", Settings(mqtt_port=0, broker="mosquitto"))
    home = open_home(tmp_path / "hub")

    async def enrolled(broker: KeptBroker, name: str) -> bool:
        password = new_password()
        home.store.add_enrolment_token(name, created_at_s=0.0, expires_at_s=2e9)
        device = NewDevice(name, hash_password(password), {}, CAPABILITIES)
        await asyncio.to_thread(home.store.enrol, device, token_sha256=name, now_s=1.0)
        await broker.update_accounts()
        return await lets_in(HOST, broker.port, name, password, timeout_s=10.0)

    async def all_enrolled() -> list[bool]:
        broker = await KeptBroker.start(home)
        try:
            return await asyncio.gather(*(enrolled(broker, f"cam-{number}") for number in range(DEVICES)))
        finally:
            await broker.stop()

    with closing(home.store):
        assert asyncio.run(all_enrolled()) == [True] * DEVICES
