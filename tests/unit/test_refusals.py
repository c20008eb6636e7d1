"""What the API says of a request without the form of its route: plain sentences, without Pydantic's terms."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict

from fleet.alerts.alert import Severity
from hub.api.errors import install


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")
    severity: Severity
    plan: dict[str, Any] | str | None = None


def _answered(method: str, path: str, **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
            return await client.request(method, path, **request)

    return asyncio.run(ask())


def _app() -> FastAPI:
    app = FastAPI()
    install(app)

    @app.get("/asked")
    def asked(by: Annotated[list[str], Query(max_length=2)], limit: Annotated[int, Query(ge=1)] = 1) -> None:
        assert by and limit

    @app.post("/told")
    def told(body: _Body) -> None:
        assert body

    return app


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("by=a&by=b&by=c", "by is given 3 times; at most 2 are taken."),
        ("by=a&limit=x", "limit must be a whole number, not 'x'."),
        ("by=a&limit=0", "limit must be at least 1, not '0'."),
        ("", "by is missing."),
    ],
)
def test_a_question_is_refused_in_a_plain_sentence(query: str, sentence: str) -> None:
    response = _answered("GET", f"/asked?{query}")
    assert response.status_code == 422
    assert response.json()["detail"] == sentence


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"severity": "urgent"}', "severity cannot be 'urgent'; use 'warning' or 'critical'."),
        (b'{"severity": "warning", "wish": 1}', "There is no wish here."),
        (b"{", "The body of the request is not JSON."),
    ],
)
def test_a_body_is_refused_in_a_plain_sentence(body: bytes, sentence: str) -> None:
    response = _answered("POST", "/told", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["detail"] == sentence


def test_what_may_be_of_several_types_is_called_by_its_name() -> None:
    response = _answered("POST", "/told", json={"severity": "warning", "plan": 5})
    assert response.json()["detail"] == "plan must be an object or a text, not 5."
