"""How answers about the fleet are given out: as a table, or as JSON, CSV or Parquet, here or into a file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from fleet.protocol.errors import InvalidInput, StorageError
from hub.cli.client import Client
from hub.cli.output import console, print_json


class Form(StrEnum):
    """The forms of an answer."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


FormOption = Annotated[
    Form | None, typer.Option("--format", help="table, json, csv or parquet; by the ending of --out.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="File to write the answer to.")]
ModelOption = Annotated[str, typer.Option("--model", help="Name of the model.")]
WhereOption = Annotated[str | None, typer.Option("--where", help="Only devices that this target means.")]
VersionOption = Annotated[int | None, typer.Option("--version", min=0, help="Only this version.")]
FeatureOption = Annotated[list[str] | None, typer.Option("--feature", help="Only this feature; repeat.")]
ByOption = Annotated[
    list[str] | None,
    typer.Option("--by", help="version, and device or an attribute such as site; repeat."),
]
ResolutionOption = Annotated[
    str | None, typer.Option("--resolution", help="minute, hour, day; or whole: one span of time.")
]
FromOption = Annotated[
    str | None, typer.Option("--from", help="ISO 8601, or so long ago: -15min, -24h, -7d; a day if left out.")
]
ToOption = Annotated[str | None, typer.Option("--to", help="Likewise; now if left out.")]


def form_of(form: Form | None, out: Path | None, *, as_json: bool) -> Form:
    """Return the form in which an answer is wanted: what was said, else what the file's ending says.

    Raises:
        InvalidInput: The ending says nothing, or a table is wanted in a file.
    """
    if form is Form.TABLE and out is not None:
        raise InvalidInput(
            "A table is for people to look at.", remedy="Write json, csv or parquet to a file."
        )
    if form is not None:
        if as_json and form is not Form.JSON:
            raise InvalidInput(f"--json and --format {form.value} contradict each other.")
        return form
    if as_json:
        return Form.JSON
    endings = {f".{one.value}": one for one in (Form.JSON, Form.CSV, Form.PARQUET)}
    if out is not None and out.suffix not in endings:
        raise InvalidInput(
            f"The ending of {out.name!r:.80} does not say which form is wanted.",
            remedy="Add --format json, csv or parquet.",
        )
    return Form.TABLE if out is None else endings[out.suffix]


def give(
    client: Client,
    path: str,
    parameters: dict[str, Any],
    form: Form,
    out: Path | None,
    draw: Callable[[Any], None],
) -> None:
    """Ask the hub and give out what it answers.

    Args:
        client: Of the hub.
        path: The route.
        parameters: Of the question; those that are None are left out.
        form: In which form.
        out: Where to; None for the standard output.
        draw: Shows the answer to people.

    Raises:
        InvalidInput: Parquet is wanted on a terminal.
        StorageError: The file cannot be written.
    """
    if form in {Form.CSV, Form.PARQUET}:
        if form is Form.PARQUET and out is None and sys.stdout.isatty():
            raise InvalidInput("Parquet is not for a terminal.", remedy="Add --out FILE.")
        with client.stream(path, format=form.value, **parameters) as parts:
            write_parts(out, parts)
        _tell(out)
        return
    give_value(client.get(path, **parameters), form, out, draw)


def give_value(answer: Any, form: Form, out: Path | None, draw: Callable[[Any], None]) -> None:
    """Give out what the hub answered in JSON; args like `give`."""
    if form is Form.TABLE:
        draw(answer)
    elif out is None:
        print_json(answer)
    else:
        write_parts(out, [json.dumps(answer, indent=2).encode(), b"\n"])
        _tell(out)


def _tell(out: Path | None) -> None:
    if out is not None:
        console.out(f"The answer is in {out}, {out.stat().st_size:,} bytes.", highlight=False)


def write_parts(out: Path | None, parts: Iterable[bytes]) -> None:
    """Write bytes to a file, whole or not at all, or to the standard output; raises `StorageError`."""
    with _opened(out) as stream:
        for part in parts:
            stream.write(part)


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as stream:
            yield stream
        unfinished.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
