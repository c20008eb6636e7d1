"""In which form an answer leaves the hub: JSON, or CSV or Parquet if ``format`` or ``Accept`` ask for it.

What may be refused is refused before an answer begins, with a status of its own; rows may be read from the
store while it is sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse

from fleet.protocol.errors import InvalidInput
from hub.query.tables import Table, check_parquet, csv_parts, parquet_parts


class Form(StrEnum):
    """The forms of an answer."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


_MEDIA = {
    Form.JSON: "application/json",
    Form.CSV: "text/csv",
    Form.PARQUET: "application/vnd.apache.parquet",
}


def _wanted(
    request: Request,
    format_: Annotated[
        str | None, Query(alias="format", description="json, csv or parquet; else by `Accept`.")
    ] = None,
) -> Form:
    if format_ is None:
        accepted = request.headers.get("accept", "")
        found = next((form for form in (Form.CSV, Form.PARQUET) if _MEDIA[form] in accepted), Form.JSON)
    else:
        try:
            found = Form(format_)
        except ValueError as error:
            raise InvalidInput(
                f"{format_!r:.40} is no format.", remedy=f"Use one of {', '.join(Form)}."
            ) from error
    if found is Form.PARQUET:
        check_parquet()
    return found


EXPORTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {media: {} for form, media in _MEDIA.items() if form is not Form.JSON}}
}
"""For the description of a route that answers in these forms."""
Wanted = Annotated[Form, Depends(_wanted)]


def exported(table: Table, form: Form, name: str) -> StreamingResponse:
    """Return a table as a file that is sent while it is written.

    Args:
        table: The answer.
        form: CSV or Parquet.
        name: Of the file, without its ending.
    """
    parts = parquet_parts(table) if form is Form.PARQUET else csv_parts(table)
    return StreamingResponse(
        parts,
        media_type=_MEDIA[form],
        headers={"Content-Disposition": f'attachment; filename="{name}.{form.value}"'},
    )
