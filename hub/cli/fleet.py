"""``muster fleet``."""

from __future__ import annotations

import typer

from hub.cli import fleet_devices, fleet_drift, fleet_health, fleet_quality, fleet_query, privacy

app = typer.Typer(help="Ask how the fleet is.", no_args_is_help=True)


app.command()(fleet_health.health)
app.command()(fleet_health.alarms)
app.command()(fleet_devices.devices)
app.command()(fleet_drift.drift)
app.command()(fleet_query.query)
app.command()(fleet_query.compare)
app.command()(fleet_quality.quality)
app.command()(privacy.noised)
