"""API tokens of people and one-time tokens of devices."""

from __future__ import annotations

from typing import Protocol

from hub.store.rows import ApiToken


class TokenStore(Protocol):
    """API tokens of people and one-time tokens of devices, by the SHA-256 of their secrets."""

    def add_api_token(self, secret_sha256: str, token: ApiToken) -> None:
        """Add a token; raises `Conflict` if its name is taken."""
        ...

    def api_token(self, secret_sha256: str) -> ApiToken | None:
        """Return the token with that hash."""
        ...

    def add_enrolment_token(self, secret_sha256: str, *, created_at_s: float, expires_at_s: float) -> None:
        """Add a one-time token for a device."""
        ...
