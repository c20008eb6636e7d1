"""``muster model``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from fleet.protocol.errors import InvalidInput, InvalidModel, error_of
from fleet.protocol.names import checked_name
from fleet.sentences import devices
from hub.cli.client import Client, client_of
from hub.cli.measurements import print_class_measurements
from hub.cli.output import JsonFlag, console, print_table, progress, show, utc
from hub.cli.questions import Yes, asks, refuse

if TYPE_CHECKING:
    from converters.bundles.bundle import Bundle

app = typer.Typer(help="Train, list, show and release model versions.", no_args_is_help=True)

POLL_S = 0.3


@app.command()
def train(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the model; the version is the next number.")],
    dataset: Annotated[str, typer.Option(help="A registered dataset.")],
    estimator: Annotated[str, typer.Option(help="What to train: logistic or mlp.")] = "mlp",
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="A hyperparameter, as name=value.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    minimum_accuracy: Annotated[float, typer.Option(min=0.0, max=1.0)] = 0.8,
    embedding: Annotated[
        str,
        typer.Option(metavar="TENSOR[:K]", help="A layer to watch for drift, such as auto, as K components."),
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Train a version, convert, quantize, evaluate and register it. Waits until it is done."""
    client = client_of(context)
    version = client.post(
        _path(model),
        {
            "dataset": dataset,
            "estimator": estimator,
            "hyperparameters": dict(_parameter(text) for text in parameter or []),
            "seed": seed,
            "minimum_accuracy": minimum_accuracy,
            "embedding": embedding,
        },
    )
    version = wait_for_training(client, version, show_progress=not as_json)
    show(version, as_json=as_json, draw=_print_version)


@app.command()
def register(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the model; the version is the next number.")],
    folder: Annotated[Path, typer.Argument(help="What `muster model convert --out` wrote.")],
    as_json: JsonFlag = False,
) -> None:
    """Check a bundle that was converted elsewhere on the hub, and register it."""
    from converters.bundles.folder import read_bundle
    from converters.bundles.output import BUNDLE_FOLDER, REPORT_FILE

    path = f"{_path(model)}/bundle"
    inner = folder / BUNDLE_FOLDER
    if not inner.is_dir() and (folder / REPORT_FILE).is_file():
        raise InvalidInput(
            f"{folder} holds variants and no bundle, because they were converted without samples.",
            remedy="Convert with --calibrate.",
        )
    bundle = read_bundle(inner if inner.is_dir() else folder)
    version = _upload(client_of(context), path, bundle, show_progress=not as_json)
    show(version, as_json=as_json, draw=_print_version)


@app.command("list")
def list_(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List model versions."""
    columns = {
        "model": "model",
        "version": "version",
        "status": "status",
        "estimator": "estimator",
        "dataset": "dataset",
        "created_at_s": "created",
    }
    rows = client_of(context).pages("/models", model=model)
    empty = "There are no models. `muster model train` and `muster model register` make one."
    print_table(rows, columns, as_json=as_json, empty=empty)


@app.command("show")
def show_version(
    context: typer.Context,
    model: Annotated[str, typer.Argument()],
    version: Annotated[int, typer.Argument(min=1)],
    as_json: JsonFlag = False,
) -> None:
    """Show one version, and what devices measured of its variants."""
    client = client_of(context)
    row = client.get(f"{_path(model)}/{version}")
    row["measurements"] = client.get(f"{_path(model)}/{version}/measurements")
    show(row, as_json=as_json, draw=_print_version)


@app.command()
def release(
    context: typer.Context,
    model: Annotated[str, typer.Argument()],
    version: Annotated[int, typer.Argument(min=1)],
    as_json: JsonFlag = False,
) -> None:
    """Sign a registered version into the image repository, so that it can be rolled out."""
    row = client_of(context).post(f"{_path(model)}/{version}/release")
    show(row, as_json=as_json, draw=_print_version)


@app.command()
def revoke(
    context: typer.Context,
    model: Annotated[str, typer.Argument()],
    version: Annotated[int, typer.Argument(min=1)],
    reason: Annotated[str, typer.Option(help="Why; kept with the version.")],
    *,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Withdraw a version for good: no rollout brings it any more. Devices that run it are named."""
    client, path = client_of(context), f"{_path(model)}/{version}/revoke"
    if asks() and not yes and not as_json:
        _print_meant(client.post(f"{path}/dry-run"))
        if not typer.confirm("Revoke it for good?"):
            refuse()
    told = client.post(path, {"reason": reason})
    show(told, as_json=as_json, draw=_print_revoked)


def wait_for_training(client: Client, version: dict[str, Any], *, show_progress: bool) -> dict[str, Any]:
    """Poll until a version is no longer in training.

    Args:
        client: Of the hub.
        version: As the API gave it.
        show_progress: Draw a progress bar.

    Raises:
        MusterError: The training failed; of the class and with the message that it failed with.
    """
    path = f"/models/{version['model']}/versions/{version['version']}"
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[step]}"))
    with progress(*columns, show=show_progress) as bar:
        task = bar.add_task(f"{version['model']} version {version['version']}", step="", total=None)
        while version["status"] == "TRAINING":
            if now := version["progress"]:
                bar.update(task, total=now["of"], completed=now["done"], step=now["step"])
            time.sleep(POLL_S)
            version = client.get(path)
    if cause := version["cause"]:
        raise error_of(cause["code"])(cause["detail"])
    return version


def _upload(client: Client, path: str, bundle: Bundle, *, show_progress: bool) -> Any:
    """Send a bundle's archive, show how much of it was taken, and wait for the hub's answer."""
    from converters.bundles.archive import archive_size_bytes, write_archive

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with progress(*columns, show=show_progress) as bar:
        task = bar.add_task("Uploading", total=archive_size_bytes(bundle))

        def parts() -> Iterator[bytes]:
            for part in write_archive(bundle):
                yield part
                bar.advance(task, len(part))
            bar.update(task, description="The hub runs every variant")

        return client.send(path, parts())


def _path(model: str) -> str:
    """Return the path of a model's versions; the name is checked, or it would not be one step of the path."""
    return f"/models/{checked_name(model, 'model name')}/versions"


def _parameter(text: str) -> tuple[str, int | float | str | bool]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InvalidModel(f"{text!r:.80} is not a hyperparameter.", remedy="Write it as name=value.")
    try:
        number = msgspec.json.decode(value, type=int | float | bool)
    except msgspec.DecodeError:
        return name, value
    return name, number


def _print_meant(told: dict[str, Any]) -> None:
    """Say what a revocation would withdraw."""
    version = told["version"]
    console.print(escape(f"{version['model']} version {version['version']} is {version['status']}."))
    _print_who_runs(told)
    for number in told["rollouts"]:
        console.print(f"Rollout {number} brings it, and would be held.")
    console.print("Nobody will be brought to it any more, and there is no way back.")


def _print_who_runs(told: dict[str, Any]) -> None:
    if not told["device_count"]:
        console.print("No device is to run it.")
        return
    more = told["device_count"] - len(told["devices"])
    names = ", ".join(told["devices"]) + (f" and {more:,} more" if more else "")
    console.print(escape(f"Devices that run it or are to: {told['device_count']:,}, {names}."))


def _print_revoked(told: dict[str, Any]) -> None:
    """Say who runs what was revoked, what is held, and how to go on."""
    _print_version(told["version"])
    for number in told["rollouts_held"]:
        console.print(f"Rollout {number} is held.")
    if back := told["going_back"]:
        their, go = ("its", "goes") if back == 1 else ("their", "go")
        console.print(f"{devices(back)} on {their} way to it {go} back.")
    _print_who_runs(told)
    if told["commands"]:
        until = "They go on until they are brought to another version:"
        console.print(until if told["device_count"] else "What is held is ended so:")
        for command in told["commands"]:
            console.print(escape(f"  {command}"), soft_wrap=True)
    elif told["device_count"] and told["has_older"]:
        console.print("No older version is proven: name one by `muster rollback --to`, or roll out another.")
    elif told["device_count"]:
        console.print("They go on. There is no older version that is released: roll out another one.")


def _print_version(version: dict[str, Any]) -> None:
    console.print(f"[bold]{version['model']} version {version['version']}[/bold] {version['status']}")
    if revoked := version["revoked"]:
        when = utc(revoked["at_s"])
        console.print(escape(f"revoked {when} by {revoked['by']}: {revoked['reason']}"))
    made = f"dataset {version['dataset']}, estimator {version['estimator']}, seed {version['seed']}"
    console.print(escape(made))
    if cause := version["cause"]:
        console.print(escape(f"cause: {cause['detail']}"))
    if version["report"]:
        variants = version["report"]["variants"]
        evaluations = [each["evaluation"] or {} for each in variants]
        rows = [{**each, "metric": it.get("value")} for each, it in zip(variants, evaluations, strict=True)]
        columns = {
            "name": "variant",
            "size_bytes": "bytes",
            "metric": next((it["metric"] for it in evaluations if it), "metric"),
            "packed": "packed",
            "reason": "reason",
        }
        print_table(rows, columns, as_json=False)
    print_class_measurements(version.get("measurements", []))
