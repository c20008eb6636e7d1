"""API tokens and enrolment tokens, by hash."""

from __future__ import annotations

import msgspec

from fleet.protocol.errors import Conflict
from hub.store.rows import ApiToken
from hub.store.sqlite.database import Part
from hub.store.sqlite.migrations import table


class SqliteTokens(Part):
    """Implements `hub.store.protocols.TokenStore`."""

    def add_api_token(self, secret_sha256: str, token: ApiToken) -> None:
        """Add a token; raises `Conflict` if its name is taken."""
        with self._database.writing() as db:
            if db.execute("SELECT 1 FROM api_tokens WHERE name = ?", [token.name]).fetchone():
                raise Conflict(
                    f"There is an API token named {token.name!r} already.", remedy="Use another name."
                )
            row = msgspec.to_builtins(token)
            table(db, "api_tokens").insert({**row, "secret_sha256": secret_sha256})

    def api_token(self, secret_sha256: str) -> ApiToken | None:
        """Return the token with that hash."""
        row = self._database.row(
            "SELECT name, role, created_at_s FROM api_tokens WHERE secret_sha256 = ?", (secret_sha256,)
        )
        return msgspec.convert(row, ApiToken) if row else None

    def add_enrolment_token(self, secret_sha256: str, *, created_at_s: float, expires_at_s: float) -> None:
        """Add a one-time token for a device."""
        with self._database.writing() as db:
            table(db, "enrolment_tokens").insert(
                {"secret_sha256": secret_sha256, "created_at_s": created_at_s, "expires_at_s": expires_at_s}
            )
