"""The embedded broker's plugins: accounts, topic permissions, a bound on what waits for absent devices.

They are named by path in the broker's configuration (`hub.broker.embedded`) and called by amqtt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session

from hub.broker.accounts import AccountsFile
from hub.broker.permissions import may_publish, may_read

MAX_WAITING_MESSAGES = 1000


class AccountsPlugin(BaseAuthPlugin):  # type: ignore[misc]  # amqtt is not typed
    """Lets in who has an account and uses its name as client id."""

    @dataclass
    class Config:
        """Where the accounts file is."""

        accounts_file: str

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._accounts = AccountsFile(Path(self.config.accounts_file))

    async def authenticate(self, *, session: Session) -> bool:
        """Tell whether the session may begin."""
        return session.client_id == session.username and self._accounts.accepts(
            session.username, session.password
        )


class TopicsPlugin(BaseTopicPlugin):  # type: ignore[misc]  # amqtt is not typed
    """Confines each account to its topics."""

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Tell whether the session may do this with the topic or filter."""
        if session is None or not session.username or not topic:
            return False
        if action is Action.PUBLISH:
            return may_publish(session.username, topic)
        return action in {Action.SUBSCRIBE, Action.RECEIVE} and may_read(session.username, topic)


class WaitingPlugin(BasePlugin):  # type: ignore[misc]  # amqtt is not typed
    """Forgets the oldest messages that wait for an absent session; amqtt itself would keep all."""

    async def on_broker_retained_message(self, *, client_id: str | None, retained_message: Any) -> None:
        """Act on a message that was set aside for a session."""
        del retained_message
        session = self.context.get_session(client_id) if client_id else None
        while session is not None and session.retained_messages.qsize() > MAX_WAITING_MESSAGES:
            session.retained_messages.get_nowait()
