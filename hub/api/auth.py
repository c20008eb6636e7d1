"""Who calls, and whether their role allows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fleet.protocol.errors import NotAuthenticated, NotPermitted
from hub.api.services import Hub
from hub.enrolment import secret_sha256
from hub.store.rows import ApiToken, Role

_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
_bearer = HTTPBearer(
    auto_error=False, description="An API token, as `muster hub init` or `hub token` printed it."
)


def _caller(
    hub: Hub, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> ApiToken:
    # The look-up is by hash: what could be timed says nothing about a token that one does not have.
    token = hub.store.api_token(secret_sha256(credentials.credentials)) if credentials else None
    if token is None:
        raise NotAuthenticated("The API token is missing or unknown.", remedy="Send it as a bearer token.")
    return token


def _at_least(role: Role) -> Callable[[ApiToken], ApiToken]:
    def check(token: Annotated[ApiToken, Depends(_caller)]) -> ApiToken:
        if _RANK[token.role] < _RANK[role]:
            raise NotPermitted(
                f"This needs the role {role.value}; the token {token.name!r} has the role {token.role.value}."
            )
        return token

    return check


Viewer = Annotated[ApiToken, Depends(_at_least(Role.VIEWER))]
Operator = Annotated[ApiToken, Depends(_at_least(Role.OPERATOR))]
Admin = Annotated[ApiToken, Depends(_at_least(Role.ADMIN))]
