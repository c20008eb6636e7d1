"""The client of the hub's API: sends requests, and turns problem details back into our errors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import typer

from fleet.protocol.errors import (
    HubUnavailable,
    InvalidConfiguration,
    MusterError,
    NotAuthenticated,
    error_of,
)

API = "/api/v1"
DEFAULT_URL = "http://127.0.0.1:8300"
"""Where a hub's API is that was made with no other address."""
TIMEOUT_S = 60.0
WORK_TIMEOUT_S = 1800.0
"""How long the hub may work on an upload, and on those that came before it."""
_PROVE_YOURSELF = (
    "Put a token of this hub into MUSTER_TOKEN, or name a file that holds one in MUSTER_TOKEN_FILE; "
    "`muster hub token NAME` makes one where the hub runs."
)
"""Takes the place of what the hub advises programs that speak HTTP."""


class Connection:
    """Where the hub is and who asks.

    Args:
        url: The hub's address.
        token_file: File with the API token; None to take it from ``MUSTER_TOKEN``.
    """

    def __init__(self, url: str, token_file: Path | None) -> None:
        self._url = url
        self._token_file = token_file
        self._client: Client | None = None

    def client(self) -> Client:
        """Return the client, made when it is first asked for.

        Raises:
            InvalidConfiguration: There is no usable token.
        """
        if self._client is None:
            self._client = Client(self._url, self._token())
        return self._client

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.close()

    def _token(self) -> str:
        if self._token_file is None:
            token = os.environ.get("MUSTER_TOKEN", "")
        else:
            try:
                token = self._token_file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidConfiguration(f"The token file {self._token_file} cannot be read.") from error
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable():
            raise InvalidConfiguration(
                "There is no API token.",
                remedy="Set MUSTER_TOKEN or MUSTER_TOKEN_FILE; `muster hub init` printed the first token.",
            )
        return token


def client_of(context: typer.Context) -> Client:
    """Return the client of the command that runs."""
    connection: Connection = context.obj
    return connection.client()


class Answer(dict[str, Any]):
    """An object of the hub's JSON; asked for a field that it lacks, it says that the two do not fit."""

    def __missing__(self, field: str) -> Any:
        raise HubUnavailable(
            f"The hub's answer has no {field!r:.60}, which this command needs.",
            remedy="Are the two of the same release? `pip show muster` tells, here and where the hub runs.",
        )


class Client:
    """Speaks to the hub's API with one token.

    Args:
        url: The hub's address.
        token: The API token.

    Raises:
        InvalidConfiguration: The address is not one.
    """

    def __init__(self, url: str, token: str) -> None:
        try:
            self._http = httpx.Client(
                base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidConfiguration(f"{url!r:.200} is not the address of a hub.") from error
        self._url = url

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON answer to a GET of a path below ``/api/v1``.

        Raises:
            HubUnavailable: The hub does not answer.
            MusterError: What the hub said.
        """
        given = {key: value for key, value in parameters.items() if value is not None}
        return self._json("GET", path, params=given)

    def post(self, path: str, body: Any = None, *, decisions: int | None = None) -> Any:
        """Return the JSON answer to a POST.

        Args:
            path: Below ``/api/v1``.
            body: JSON.
            decisions: How many a rollout must still have, see `hub.api.preconditions`; None for any.

        Raises:
            Outdated: It has others.
            MusterError: Like `get`.
        """
        headers = {} if decisions is None else {"If-Match": f'"{decisions}"'}
        return self._json("POST", path, json=body if body is not None else {}, headers=headers)

    def upload(self, path: str, file: Path) -> Any:
        """PUT a file's bytes, streamed; raises like `get`."""
        try:
            with file.open("rb") as stream:
                return self._json("PUT", path, content=stream)
        except OSError as error:
            raise InvalidConfiguration(f"{file} cannot be read: {error.strerror}.") from error

    def send(self, path: str, parts: Iterable[bytes]) -> Any:
        """POST bytes, part by part, and wait until the hub has worked on them; raises like `get`."""
        return self._json("POST", path, content=parts, timeout=httpx.Timeout(TIMEOUT_S, read=WORK_TIMEOUT_S))

    def download(self, path: str, **parameters: Any) -> bytes:
        """Return the bytes that answer a GET; parameters and errors are as of `get`."""
        given = {key: value for key, value in parameters.items() if value is not None}
        return self._answer("GET", path, params=given).content

    @contextmanager
    def stream(self, path: str, **parameters: Any) -> Iterator[Iterator[bytes]]:
        """Give the bytes that answer a GET, part by part as they come; raises like `get`."""
        given = {key: value for key, value in parameters.items() if value is not None}
        try:
            with self._http.stream("GET", API + path, params=given) as response:
                if not response.is_success:
                    response.read()
                    raise _error(response)
                yield response.iter_bytes()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._silent(error) from error

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def pages(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page after page."""
        after: str | None = None
        while True:
            page = self.get(path, after=after, **parameters)
            try:
                items, after = page["items"], page["next"]
            except (HubUnavailable, TypeError) as error:
                raise HubUnavailable(f"The server at {self._url} is not a Muster hub.") from error
            yield from items
            if after is None:
                return

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._answer(method, path, **arguments)
        try:
            return response.json(object_hook=Answer)
        except ValueError as error:
            raise _no_hub(response) from error

    def _answer(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, API + path, **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._silent(error) from error
        if not response.is_success:
            raise _error(response)
        return response

    def _silent(self, error: Exception) -> HubUnavailable:
        return HubUnavailable(
            f"The hub at {self._url} does not answer ({type(error).__name__}).",
            remedy="Is `muster hub serve` running there? Set MUSTER_URL if it is elsewhere.",
        )


def _error(response: httpx.Response) -> MusterError:
    try:
        problem = response.json()
        kind, remedy = error_of(problem["code"]), str(problem.get("remedy", ""))
        if kind is NotAuthenticated:
            remedy = _PROVE_YOURSELF
        return kind(str(problem["detail"]), remedy=remedy)
    except (ValueError, KeyError, TypeError):
        return _no_hub(response)


def _no_hub(response: httpx.Response) -> HubUnavailable:
    return HubUnavailable(f"The server answered {response.status_code} and is not a Muster hub.")
