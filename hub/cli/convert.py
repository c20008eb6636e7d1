"""``muster model convert``: works on this machine's files alone; no hub need run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.progress import Progress, TextColumn

from fleet.protocol.errors import ConversionFailed, InvalidInput
from fleet.protocol.names import checked_name
from hub.cli.conversion_options import (
    CalibrationMethodOption,
    CalibrationOption,
    ClassesOption,
    EmbeddingOption,
    FolderOption,
    HeldOutOption,
    KeepFloatOption,
    LayoutOption,
    MaximumDropOption,
    MinimumOption,
    NameOption,
    PageOption,
    SampleShapeOption,
    SeedOption,
    SensitivityOption,
    SourceArgument,
    TargetsOption,
    TaskOption,
    TrustPickleOption,
)
from hub.cli.output import JsonFlag, print_json, progress
from hub.cli.stderr import set_aside
from hub.durable import write_durably

if TYPE_CHECKING:
    from converters.convert import Conversion


def convert(
    source: SourceArgument,
    out: FolderOption,
    target: TargetsOption = None,
    calibrate: CalibrationOption = None,
    held_out: HeldOutOption = None,
    calibration_method: CalibrationMethodOption = "minmax",
    keep_float: KeepFloatOption = None,
    sensitivity: SensitivityOption = False,
    maximum_drop: MaximumDropOption = 0.01,
    minimum: MinimumOption = None,
    task: TaskOption = None,
    class_: ClassesOption = None,
    sample_shape: SampleShapeOption = None,
    layout: LayoutOption = None,
    embedding: EmbeddingOption = "",
    seed: SeedOption = 0,
    trust_pickle: TrustPickleOption = False,
    name: NameOption = None,
    html: PageOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Convert a trained model for the fleet's runtimes, and judge each variant against it."""
    from converters.bundles.output import check_output
    from converters.convert import convert as convert_model
    from converters.judging.gate import Gate
    from hub.cli.conversion import print_advice, print_report, print_written

    if name is not None:
        checked_name(name, "model name")
    check_output(out)
    if html is not None and html.is_dir():
        raise InvalidInput(f"{html} is a folder.", remedy="Name a file for --html.")
    kept = _listed(keep_float)
    searched = kept == ["auto"]
    work = partial(
        convert_model,
        source,
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
    conversion = _called(_shown(work, source.name, show_progress=not as_json), name)
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


def _shown(work: Callable[..., Conversion], source: str, *, show_progress: bool) -> Conversion:
    """Convert, and show how far it is."""
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[step]}"))
    with set_aside() as stream, progress(*columns, show=show_progress, stream=stream) as bar:
        shown = bar.add_task(f"Converting {source}", step="open the source", total=None)

        def on_step(step: str, done: int, of: int) -> None:
            bar.update(shown, total=of, completed=done, step=step)

        return work(on_step=on_step)


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
