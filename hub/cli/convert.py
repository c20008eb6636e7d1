"""``muster model convert``: works on this machine's files alone; no hub need run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from converters.target import CalibrationMethod
from fleet.protocol.errors import ConversionFailed, InvalidInput
from fleet.protocol.manifest import Task
from fleet.protocol.names import checked_name
from hub.cli.output import JsonFlag, print_json
from hub.durable import write_durably

if TYPE_CHECKING:
    from converters.convert import Conversion, KeepFloat


def convert(
    source: Annotated[
        Path, typer.Argument(help="A model: .onnx, .tflite, .pt2, .pkl, .joblib, or an MLflow folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist, or be empty.")],
    target: Annotated[
        list[str] | None, typer.Option(help="What to build, such as tflite-int8; without it, all that suit.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Dataset file to calibrate with, and to judge by unless --held-out is."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Dataset file to judge by, which training did not see.")
    ] = None,
    calibration_method: Annotated[
        CalibrationMethod, typer.Option(help="How ranges of activations are found for ONNX int8.")
    ] = "minmax",
    keep_float: Annotated[
        str | None, typer.Option(help="auto, or names of nodes, comma-separated, that stay float in int8.")
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure what each layer loses.")
    ] = False,
    maximum_drop: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Greatest loss of the metric against the source.")
    ] = 0.01,
    minimum: Annotated[
        float | None,
        typer.Option(max=1.0, help="Least value of the metric, of the source and every variant."),
    ] = None,
    task: Annotated[
        Task | None, typer.Option(help="What the model is for, where that cannot be told.")
    ] = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Name of a class; repeat, in their order.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of every random choice.")] = 0,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Read a pickle or .pt2, which can run any program as you.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model in the bundle.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML page too.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Convert a trained model for the fleet's runtimes, and judge each variant against it."""
    from converters.bundles.output import check_output
    from converters.judging.gate import Gate

    if name is not None:
        checked_name(name, "model name")
    check_output(out)
    if html is not None and html.is_dir():
        raise InvalidInput(f"{html} is a folder.", remedy="Name a file for --html.")
    conversion = _converted(
        source,
        show_progress=not as_json,
        targets=target,
        samples=calibrate,
        held_out=held_out,
        gate=Gate(maximum_drop, minimum),
        method=calibration_method,
        keep_float=_kept(keep_float),
        sensitivity=sensitivity,
        seed=seed,
        task=task,
        classes=tuple(class_ or ()),
        trust_pickle=trust_pickle,
    )
    _deliver(_called(conversion, name), out, html, as_json=as_json)


def _converted(source: Path, *, show_progress: bool, **how: Any) -> Conversion:
    from converters.convert import convert as convert_model

    terminal = Console(stderr=True)
    with Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.fields[step]}"),
        console=terminal,
        transient=True,
        disable=not (show_progress and terminal.is_terminal),
    ) as bar:
        shown = bar.add_task(f"Converting {source.name}", step="open the source", total=None)

        def on_step(step: str, done: int, of: int) -> None:
            bar.update(shown, total=of, completed=done, step=step)

        return convert_model(source, on_step=on_step, **how)


def _kept(text: str | None) -> KeepFloat:
    if text is None or text == "auto":
        return "auto" if text else ()
    return tuple(name for name in text.split(",") if name)


def _called(conversion: Conversion, name: str | None) -> Conversion:
    """Return the conversion with a bundle of that name."""
    from converters.bundles.bundle import renamed

    if name is None or conversion.bundle is None:
        return conversion
    return replace(conversion, bundle=renamed(conversion.bundle, name, conversion.bundle.manifest.version))


def _deliver(conversion: Conversion, out: Path, html: Path | None, *, as_json: bool) -> None:
    """Write the files, then show the report.

    Raises:
        ConversionFailed: No variant passed.
    """
    from converters.bundles.output import write_conversion
    from converters.page.report_page import report_page
    from hub.cli.conversion import print_report, print_written

    names = write_conversion(out, conversion) if conversion.models else ()
    if html is not None:
        write_durably(html, report_page(conversion.report).encode())
    if as_json:
        print_json(msgspec.to_builtins(conversion.report))
    else:
        print_report(conversion.report)
        print_written(out, names, html, conversion.bundle)
    if not names:
        raise ConversionFailed(
            f"No variant of {conversion.report.source.name} passed, so {out} was not written.",
            remedy="The report says why for each.",
        )
