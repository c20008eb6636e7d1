"""``muster hub``: make a hub, run it, and give people tokens. These work on the hub's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hub.cli.client import DEFAULT_URL
from hub.cli.output import console
from hub.settings import Settings
from hub.store.rows import Role

app = typer.Typer(help="Make and run a hub on this machine.", no_args_is_help=True)

Home = Annotated[Path, typer.Option(envvar="MUSTER_HOME", help="The hub's folder.")]
DEFAULT_HOME = Path("muster-hub")


@app.command()
def init(
    home: Home = DEFAULT_HOME,
    http_host: Annotated[str, typer.Option(help="Address of the API.")] = Settings().http_host,
    http_port: Annotated[int, typer.Option(min=0, max=65535)] = Settings().http_port,
    broker: Annotated[str, typer.Option(help="auto, embedded or mosquitto.")] = Settings().broker,
    mqtt_host: Annotated[str, typer.Option(help="Address of the MQTT broker.")] = Settings().mqtt_host,
    mqtt_port: Annotated[int, typer.Option(min=0, max=65535)] = Settings().mqtt_port,
) -> None:
    """Make a hub's folder: keys, trust metadata, database. Prints the admin token, once."""
    from hub.home import create_home, parse_settings

    settings = parse_settings(
        {**msgspec.structs.asdict(Settings()), "http_host": http_host, "http_port": http_port}
        | {"broker": broker, "mqtt_host": mqtt_host, "mqtt_port": mqtt_port}
    )
    token = create_home(home, settings)
    console.print(f"The hub's folder is {home}. Run it with: muster hub serve --home {home}")
    url = _local_url(settings)
    if url not in {DEFAULT_URL, ""}:
        console.out(f"Commands find it there by: export MUSTER_URL={url}", highlight=False)
    console.print("The admin token, shown this once (put it into MUSTER_TOKEN):")
    console.out(token, highlight=False)


@app.command()
def serve(home: Home = DEFAULT_HOME) -> None:
    """Run the hub: broker, API, rollouts, drift. Ends cleanly on Ctrl-C or SIGTERM."""
    from hub.service import serve as run_hub

    run_hub(home)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who or what the token is for.")],
    role: Annotated[Role, typer.Option(help="What it allows.")] = Role.VIEWER,
    home: Home = DEFAULT_HOME,
) -> None:
    """Make another API token and print it, once."""
    from hub.home import add_api_token

    console.out(add_api_token(home, name, role), highlight=False)


def _local_url(settings: Settings) -> str:
    """Return where commands on this machine find the hub; empty if the system chooses its port."""
    every = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound to it here
    host = every.get(settings.http_host, settings.http_host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.http_port}" if settings.http_port else ""
