"""Errors over HTTP: problem details (RFC 9457), one status for each branch of the error tree."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fleet.protocol import errors
from fleet.protocol.errors import MusterError
from hub.api.refusals import sentence_of

PROBLEM_TYPE = "application/problem+json"

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[MusterError], HTTPStatus], ...] = (
    # The most specific classes first.
    (errors.MessageTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.PreconditionRequired, HTTPStatus.PRECONDITION_REQUIRED),
    (errors.InvalidInput, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.ModelError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.DigestMismatch, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.NotFound, HTTPStatus.NOT_FOUND),
    (errors.Outdated, HTTPStatus.PRECONDITION_FAILED),
    (errors.Conflict, HTTPStatus.CONFLICT),
    (errors.NotAuthenticated, HTTPStatus.UNAUTHORIZED),
    (errors.AccessDenied, HTTPStatus.FORBIDDEN),
    (errors.NoSpace, HTTPStatus.INSUFFICIENT_STORAGE),
    (errors.Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (MusterError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


def status_of(error: type[MusterError]) -> HTTPStatus:
    """Return the HTTP status of a class of errors."""
    return next(status for kind, status in _STATUS if issubclass(error, kind))


def problem(status: HTTPStatus, *, code: str, detail: str, remedy: str = "") -> JSONResponse:
    """Return a problem details response.

    Args:
        status: The HTTP status.
        code: Our stable error code; also the last part of the problem's type.
        detail: What happened.
        remedy: What to do; an extension member of RFC 9457, section 3.2.
    """
    body = {
        "type": f"urn:muster:error:{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        "remedy": remedy,
    }
    headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(body, status_code=status.value, media_type=PROBLEM_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Make the application answer every error as problem details."""

    async def of_ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, MusterError)
        return problem(status_of(type(error)), code=error.code, detail=error.message, remedy=error.remedy)

    async def of_the_request(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        detail = sentence_of(error.errors())
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, code=errors.InvalidInput.code, detail=detail)

    async def of_the_framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        code = errors.NotFound.code if status is HTTPStatus.NOT_FOUND else errors.InvalidInput.code
        return problem(status, code=code, detail=str(error.detail))

    async def of_nobody(_: Request, error: Exception) -> JSONResponse:
        log.error("A request failed that should not have.", exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            code=MusterError.code,
            detail="The hub failed on this request.",
            remedy="Its log says why.",
        )

    app.add_exception_handler(MusterError, of_ours)
    app.add_exception_handler(Exception, of_nobody)
    app.add_exception_handler(RequestValidationError, of_the_request)
    app.add_exception_handler(HTTPException, of_the_framework)
