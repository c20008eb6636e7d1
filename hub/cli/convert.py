"""``muster model convert``: works on this machine's files alone; no hub need run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.progress import Progress, TextColumn

from converters.target import CalibrationMethod
from converters.targets import TARGETS
from fleet.drift.inputs import LAYOUTS
from fleet.protocol.errors import ConversionFailed, InvalidInput
from fleet.protocol.manifest import Task
from fleet.protocol.names import checked_name
from hub.cli.output import JsonFlag, print_json, progress
from hub.cli.stderr import set_aside
from hub.durable import write_durably

if TYPE_CHECKING:
    from converters.convert import Conversion


def convert(
    source: Annotated[
        Path, typer.Argument(help="A model: .onnx, .tflite, .pt2, .pkl, .joblib, or an MLflow folder.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder to write; must not exist, or be empty.")
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGETS",
            help=f"What to build, comma-separated or repeated: {', '.join(TARGETS)}; without it, all.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Dataset file to calibrate with; half of it judges if --held-out is missing."
        ),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Dataset file to judge by, which training did not see."),
    ] = None,
    calibration_method: Annotated[
        CalibrationMethod, typer.Option(help="How ranges of activations are found for ONNX int8.")
    ] = "minmax",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|NODES",
            help="auto, or names of nodes that stay float in int8, comma-separated or repeated;"
            " --sensitivity shows them.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure what each layer loses in int8.")
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
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Name of a class; repeat, in their order."),
    ] = None,
    sample_shape: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Shape of a sample as devices send it, such as 8,8, for a scikit-learn model of flat rows.",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT",
            help=f"What the axes of the input are, for its drift profile: {', '.join(LAYOUTS)}.",
        ),
    ] = None,
    embedding: Annotated[
        str,
        typer.Option(
            metavar="TENSOR[:K]",
            help="A layer to watch for drift, as K components: its tensor, or auto, what the last product"
            " takes.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of every random choice.")] = 0,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Read a pickle or .pt2, which can run any program as you.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the model in the bundle; by default after the source."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page too.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Convert a trained model for the fleet's runtimes, and judge each variant against it."""
    from converters.bundles.output import check_output
    from converters.judging.gate import Gate
    from hub.cli.conversion import print_advice, print_report, print_written

    if name is not None:
        checked_name(name, "model name")
    check_output(out)
    if html is not None and html.is_dir():
        raise InvalidInput(f"{html} is a folder.", remedy="Name a file for --html.")
    kept = _listed(keep_float)
    searched = kept == ["auto"]
    conversion = _converted(
        source,
        show_progress=not as_json,
        targets=_listed(target) or None,
        samples=calibrate,
        held_out=held_out,
        gate=Gate(maximum_drop, minimum),
        method=calibration_method,
        keep_float="auto" if searched else kept,
        sensitivity=sensitivity,
        seed=seed,
        layout=layout or "",
        embedding=embedding,
        task=task,
        classes=tuple(class_ or ()),
        sample_shape=None if sample_shape is None else _shape(sample_shape),
        trust_pickle=trust_pickle,
    )
    conversion = _called(conversion, name)
    names = _write(conversion, out, html)
    if as_json:
        print_json(msgspec.to_builtins(conversion.report))
    else:
        print_report(conversion.report)
        print_advice(conversion.report, searched=searched, measured=sensitivity)
        print_written(out, names, html, conversion.bundle)
    if not names:
        raise ConversionFailed(
            f"No variant of {conversion.report.source.name} passed, so {out} was not written.",
            remedy="The report says why for each.",
        )


def _converted(source: Path, *, show_progress: bool, **how: Any) -> Conversion:
    from converters.convert import convert as convert_model

    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[step]}"))
    with set_aside() as stream, progress(*columns, show=show_progress, stream=stream) as bar:
        shown = bar.add_task(f"Converting {source.name}", step="open the source", total=None)

        def on_step(step: str, done: int, of: int) -> None:
            bar.update(shown, total=of, completed=done, step=step)

        return convert_model(source, on_step=on_step, **how)


def _listed(texts: list[str] | None) -> list[str]:
    """Return names that were given by repeating an option, or separated by commas."""
    names = (name.strip() for text in texts or () for name in text.split(","))
    return [name for name in names if name]


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if not all(re.fullmatch(r" *[1-9][0-9]{0,8} *", size) for size in sizes):
        raise InvalidInput(
            f"{text!r:.80} is not the shape of a sample.",
            remedy="Give sizes separated by commas, such as 8,8.",
        )
    return tuple(int(size) for size in sizes)


def _called(conversion: Conversion, name: str | None) -> Conversion:
    """Return the conversion with a bundle of that name."""
    from converters.bundles.bundle import renamed

    if name is None or conversion.bundle is None:
        return conversion
    return replace(conversion, bundle=renamed(conversion.bundle, name, conversion.bundle.manifest.version))


def _write(conversion: Conversion, out: Path, html: Path | None) -> tuple[str, ...]:
    """Write the folder, if anything passed, and the page; return the names of what is in the folder."""
    from converters.bundles.output import write_conversion
    from converters.page.report_page import report_page

    names = write_conversion(out, conversion) if conversion.models else ()
    if html is not None:
        write_durably(html, report_page(conversion.report).encode())
    return names
