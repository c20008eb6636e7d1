"""The hub's broker as long as the hub runs: started, started again if it ends, and told of new accounts.

The accounts are every device's, and the hub's own, whose password is new with every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Self

from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.errors import BrokerUnavailable, MusterError
from fleet.protocol.topics import HUB_ACCOUNT
from hub.broker.accounts import hash_password, new_password
from hub.broker.process import Broker, start_broker
from hub.home import Home

log = logging.getLogger(__name__)

_RESTART_S = 2.0
LONGEST_REST_S = 0.5


class KeptBroker:
    """A broker that is kept running; made by `start`.

    Attributes:
        host: The address that it listens on.
        hub_password: Of the hub's account.

    Args:
        home: Its store knows the devices.
    """

    def __init__(self, home: Home) -> None:
        self.host = home.settings.mqtt_host
        self.hub_password = new_password()
        self._hub_hash = hash_password(self.hub_password)
        self._home = home
        self._lock = asyncio.Lock()
        self._updates_asked = self._updates_done = 0
        self._next_turn_s = 0.0
        self._broker: Broker

    @classmethod
    async def start(cls, home: Home) -> Self:
        """Start the broker that the settings name; raises like `hub.broker.process.start_broker`."""
        kept = cls(home)
        await kept._start(home.settings.mqtt_port)
        return kept

    @property
    def port(self) -> int:
        """The TCP port, the same over all starts."""
        return self._broker.port

    @property
    def version(self) -> str:
        """Which broker it is, and its version."""
        return self._broker.version

    async def keep(self) -> None:
        """Start the broker again whenever it ends; devices and hub reconnect by themselves."""
        while True:
            try:
                await self._broker.wait()
            except BrokerUnavailable as error:
                log.error("%s It is started again.", error)
            await asyncio.sleep(_RESTART_S)
            async with self._lock:
                with contextlib.suppress(MusterError):
                    await self._start(self.port)

    async def update_accounts(self) -> None:
        """Let the devices in that the store knows now; raises like `Broker.update_accounts`.

        The file is written as a whole, and the broker checks all connections anew when it reads it: of those
        that ask meanwhile, the next one does it for all. Between two turns there is as much time as the
        first took: most of a crowd shares one, and the larger the fleet, the more share it.
        """
        self._updates_asked += 1
        mine = self._updates_asked
        async with self._lock:  # or an older list of accounts could be written over a newer one
            if self._updates_done >= mine:
                return
            await asyncio.sleep(self._next_turn_s - time.monotonic())
            asked = self._updates_asked  # whoever asked so far has its device in the store
            begun_s = time.monotonic()
            await self._broker.update_accounts(await asyncio.to_thread(self._accounts))
            self._updates_done = asked
            ended_s = time.monotonic()
            self._next_turn_s = ended_s + min(ended_s - begun_s, LONGEST_REST_S)

    def access(self, username: str, password: str, reached_host: str) -> BrokerAccess:
        """Return what a device connects with.

        Args:
            username: Of its account.
            password: Likewise.
            reached_host: Where the device reached the hub, for hubs that are not told their public host.
        """
        host = self._home.settings.mqtt_public_host or reached_host
        return BrokerAccess(host, self.port, username, password)

    async def stop(self) -> None:
        """End the broker; to do so twice does no harm."""
        await self._broker.stop()

    async def _start(self, port: int) -> None:
        accounts = await asyncio.to_thread(self._accounts)
        folder = self._home.folder / "broker"
        self._broker = await start_broker(self._home.settings.broker, folder, self.host, port, accounts)
        for warning in self._broker.warnings:
            log.warning("%s", warning)

    def _accounts(self) -> dict[str, str]:
        """Return the password hash of every account."""
        return {**self._home.store.password_hashes(), HUB_ACCOUNT: self._hub_hash}
