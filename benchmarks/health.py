"""What health of a large fleet costs: ``make bench-health``; docs/benchmarks.md says how.

::

    write a fleet ─► a hub serves it ─► ask its API, by what one likes ─► CPU seconds of its process
                 ─► the same questions without counts, and by judging everything anew
                 ─► heartbeats with and without what keeps states ─► tables ─► aims
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.aims import Aim
from benchmarks.health_fleet import MODEL, FleetMember, heartbeats, members, write_fleet
from benchmarks.parts import Part, show_parts
from benchmarks.table import table
from fleet.health import HealthPolicy, device_health, fleet_health
from hub.cli.client import Client
from hub.home import ADDRESS_FILE, Address, create_home
from hub.settings import Settings
from hub.store.sqlite import SqliteStore
from hub.store.state_rows import StateRules

SETTINGS = Settings(
    http_port=0,
    mqtt_port=0,
    broker="embedded",
    group_by=("site", "camera"),
    offline_after_s=7 * 86400.0,
    rollout_tick_s=3600.0,
)
"""Nothing but questions happens while they are measured: no tick, and nobody falls silent."""
RULES = StateRules(HealthPolicy(silence_limit_s=SETTINGS.offline_after_s), SETTINGS.group_by)
QUESTIONS: Mapping[str, dict[str, str]] = {
    "the fleet": {},
    "by state": {"by": "state"},
    "by version": {"by": "version"},
    "by site": {"by": "site"},
    "by hardware": {"by": "hardware"},
    "by site, one model": {"by": "site", "model": MODEL},
}
GLOBAL_MS, GROUP_MS = 15.0, 50.0
START_TIMEOUT_S = 120.0
STEP = 500


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.health", description="Measure health of a large fleet.")
    parser.add_argument("--devices", type=int, default=100_000, help="devices of the fleet")
    parser.add_argument("--requests", type=int, default=100, help="requests of each kind")
    parser.add_argument("--heartbeats", type=int, default=10_000, help="heartbeats")
    parser.add_argument("--seed", type=int, default=5, help="fixes the fleet")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-health-") as temporary:
        home = Path(temporary) / "hub"
        token = create_home(home, SETTINGS)
        fleet = members(arguments.devices, arguments.seed)
        with closing(SqliteStore(home / "hub.db")) as store:
            write_fleet(store, fleet)
            sys.stderr.write("  the fleet is written\n")
            first_s = _refreshed_s(store)
            anew = _anew_ms(store, fleet)
        grouped = _grouped_ms(home / "hub.db", Path(temporary) / "grouped.db")
        asked = _asked_ms(home, token, arguments.requests)
        kept = _kept(home / "hub.db", Path(temporary), fleet[: arguments.heartbeats])
    parts = [_questions(asked, grouped, anew, arguments.devices), _keeping(kept, first_s, arguments)]
    show_parts(parts)


def _cpu_s(work: Callable[[], object]) -> float:
    before_s = time.process_time()
    work()
    return time.process_time() - before_s


def _refreshed_s(store: SqliteStore) -> float:
    """Judge everything that is marked; return the CPU time."""
    store.adopt_rules(RULES)

    def refresh() -> None:
        while store.refresh_states(now_s=time.time(), limit=STEP):
            pass

    return _cpu_s(refresh)


def _anew_ms(store: SqliteStore, fleet: list[FleetMember]) -> dict[str, float]:
    """Gather and judge everything at the question, as the hub did before it kept states."""
    ids, now_s = [member.id for member in fleet], time.time()
    site = {member.id: member.attributes["site"] for member in fleet}

    def by_site() -> None:
        judged = (device_health(facts, now_s, RULES.policy) for facts in store.facts(ids))
        Counter((site[health.device_id], health.status) for health in judged)

    everything = _cpu_s(lambda: fleet_health(store.facts(ids), now_s, RULES.policy))
    return {"the fleet": 1000 * everything, "by site": 1000 * _cpu_s(by_site)}


def _grouped_ms(database: Path, copy: Path) -> dict[str, float]:
    """Group the state rows at the question, on covering indexes and with a column that are made for it."""
    shutil.copy(database, copy)
    questions = {
        "the fleet": "SELECT status, count(*) FROM device_states GROUP BY status",
        "by site": "SELECT site, status, count(*) FROM device_states GROUP BY site, status",
        "by version": "SELECT model, version, count(*) FROM model_states GROUP BY model, version",
    }
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("ALTER TABLE device_states ADD COLUMN site TEXT")
        connection.execute("UPDATE device_states SET site = json_extract(traits, '$.site')")
        connection.execute("CREATE INDEX by_site ON device_states (site, status)")
        connection.execute("CREATE INDEX by_status ON device_states (status)")
        connection.execute("CREATE INDEX by_version ON model_states (model, version)")
        found = {}
        for name, sql in questions.items():
            ask = partial(_all_rows, connection, sql)
            ask()
            found[name] = 1000 * min(_cpu_s(ask) for _ in range(5))
    return found


def _all_rows(connection: sqlite3.Connection, sql: str) -> list[tuple[object, ...]]:
    return connection.execute(sql).fetchall()


def _asked_ms(home: Path, token: str, requests: int) -> dict[str, float]:
    """Ask a hub over HTTP; return CPU milliseconds of its process for each answer."""
    with _serving(home) as (address, process):
        client = Client(address.url, token)
        found: dict[str, float] = {}
        for name, parameters in QUESTIONS.items():
            client.get("/fleet/health", **parameters)
            before_s = _cpu_of(process)
            for _ in range(requests):
                client.get("/fleet/health", **parameters)
            found[name] = 1000 * (_cpu_of(process) - before_s) / requests
        before_s = _cpu_of(process)
        client.get("/drift/alarms")
        found["drift alarms"] = 1000 * (_cpu_of(process) - before_s)
        client.close()
    return found


@contextmanager
def _serving(home: Path) -> Generator[tuple[Address, int]]:
    command = [sys.executable, "-m", "hub", "hub", "serve", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (home / ADDRESS_FILE).exists():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("The hub did not start.")
            time.sleep(0.1)
        time.sleep(2.0)  # what it does at its start is not measured
        yield msgspec.json.decode((home / ADDRESS_FILE).read_bytes(), type=Address), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _cpu_of(pid: int) -> float:
    """Return the CPU time of a process without its children, of all its threads, ended ones included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _kept(database: Path, folder: Path, fleet: list[FleetMember]) -> dict[str, float]:
    """Return CPU microseconds of each heartbeat, by what it changes."""
    plain = folder / "plain.db"
    shutil.copy(database, plain)
    with closing(sqlite3.connect(plain)) as connection:
        connection.execute("DROP TRIGGER device_changed")
        connection.commit()

    def each_us(work: Callable[[], object]) -> float:
        return 1e6 * _cpu_s(work) / len(fleet)

    def take(store: SqliteStore, version: int | None = None) -> None:
        for start in range(0, len(fleet), STEP):
            store.take_in(heartbeats(fleet[start : start + STEP], version))

    found: dict[str, float] = {}
    with closing(SqliteStore(plain)) as store:
        take(store)
        found["without states"] = each_us(lambda: take(store))
    with closing(SqliteStore(database)) as store:
        take(store)
        found["nothing changes"] = each_us(lambda: take(store))
        found["the version changes"] = each_us(lambda: take(store, 1))
        found["judging what changed"] = 1e6 * _refreshed_s(store) / len(fleet)
    return found


def _questions(
    asked: dict[str, float], grouped: dict[str, float], anew: dict[str, float], devices: int
) -> Part:
    def cell(values: dict[str, float], name: str) -> str:
        return f"{values[name]:,.1f}" if name in values else "-"

    rows = [
        [name, *(cell(values, name) for values in (asked, grouped, anew))]
        for name in (*QUESTIONS, "drift alarms")
    ]
    heads = ["question", "hub's API", "GROUP BY states", "judged anew"]
    shown = table(f"Health of {devices:,} devices, CPU ms of an answer", heads, rows)
    aims = [Aim("health-global-ms", asked["the fleet"], "<=", GLOBAL_MS)]
    aims += [
        Aim(f"health-{name.replace(', ', '-').replace(' ', '-')}-ms", asked[name], "<=", GROUP_MS)
        for name in QUESTIONS
        if name != "the fleet"
    ]
    return [shown], aims


def _keeping(kept: dict[str, float], first_s: float, arguments: argparse.Namespace) -> Part:
    rows = [[name, f"{value:.1f}"] for name, value in kept.items()]
    rows.append(["judging the whole fleet", f"{1e6 * first_s / arguments.devices:.1f}"])
    title = f"Keeping states: {arguments.heartbeats:,} heartbeats, CPU µs for each device"
    return [table(title, ["what", "µs"], rows)], []


if __name__ == "__main__":
    main()
