"""The diagnostic bundle: what somebody far away needs to understand a device, and no secret.

It is made of what is named here, part by part; no file is taken as it is. Left out by that are the broker's
password, tokens and keys, inputs and labels, arguments of commands, and passwords in addresses. As a second
net, wherever a secret that the device knows turns up in a text all the same, it is blacked out.

The form is JSON lines, compressed by gzip: a line for each part, ``{"part": name, …}``, then the last entries
of the log, oldest first. If that is too large, the oldest entries are left out, as the first line says; if
that is not enough, the largest parts.
"""

from __future__ import annotations

import ctypes
import gzip
import logging
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from agent import capabilities
from agent.identity import Identity, read_identity
from agent.life.gate import read_waiting
from agent.life.hold import held
from agent.life.store import LifeStore
from agent.settings import Settings, read_settings
from agent.telemetry.outbox import Counts
from agent.trust.director import read_sequence
from fleet.protocol.errors import MusterError
from fleet.protocol.messages import ModelState
from fleet.protocol.records import MAX_DIAGNOSTICS_SIZE_BYTES, Incident

FORMAT = 1
BLACKED_OUT = "[redacted]"
MAX_LINE_BYTES = 32 * 1024
"""Longest line; what a part tells in more is not worth its place."""
_OF_MEMORY = {"MemTotal", "MemFree", "MemAvailable", "SwapTotal", "SwapFree"}
_OF_PROCESS = {"VmPeak", "VmSize", "VmHWM", "VmRSS", "RssAnon", "RssFile", "VmSwap", "Threads", "FDSize"}
_FIELD = re.compile(r"\w+:\s")
"""A line ``name: value``; the first of ``smaps_rollup`` is none, and only tells addresses."""
_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
"""Tells of a clock that was set where the service may not ask the kernel."""
_NOT_SYNCHRONISED = 5
"""What ``adjtimex`` returns of a clock that nothing sets: TIME_ERROR, see adjtimex(2)."""


class Live(NamedTuple):
    """What only the running agent knows.

    Attributes:
        models: What the device holds of each model.
        outbox: What is in the outbox; None if it cannot be read.
        connected: Whether it is connected to the broker.
        incidents: The last ones.
        log_lines: The last entries of the log, oldest first, each a line of JSON.
    """

    models: tuple[ModelState, ...]
    outbox: Counts | None
    connected: bool
    incidents: tuple[Incident, ...]
    log_lines: list[str]


def collect(state: Path, live: Live | None = None, request_id: str | None = None) -> bytes:
    """Return a device's bundle, at most `MAX_DIAGNOSTICS_SIZE_BYTES`.

    Args:
        state: The state folder of an enrolled device.
        live: What the running agent knows; None if none is asked.
        request_id: Whom it answers.

    Raises:
        InvalidConfiguration: The folder is not enrolled.
        StorageCorrupt: Who the device is cannot be read.
    """
    identity = read_identity(state)
    sources: dict[str, Callable[[], Any]] = {
        "device": lambda: _device(identity, state),
        "versions": _versions,
        "settings": lambda: shown_settings(read_settings(state)),
        "capabilities": lambda: capabilities.measure(state),
        "lives": lambda: {m: stored.life for m, stored in LifeStore(state / "life").load()[0].items()},
        "waiting": lambda: {"for": read_waiting(state), "held_here": held(state)},
        "system": lambda: _system(state),
        "clock": _clock,
    }
    if live is not None:
        sources |= {
            "process": _process,
            "models": lambda: live.models,
            "outbox": lambda: {"counts": live.outbox and live.outbox._asdict(), "connected": live.connected},
            "incidents": lambda: live.incidents,
        }
    parts = {name: _read(read) for name, read in sources.items()}
    head = {"format": FORMAT, "request_id": request_id, "at_s": time.time(), "live": live is not None}
    return pack(head, parts, live.log_lines if live else [], _secrets(identity))


def pack(head: dict[str, Any], parts: dict[str, Any], log_lines: list[str], secrets: Iterable[str]) -> bytes:
    """Return parts and log lines as a bundle of at most `MAX_DIAGNOSTICS_SIZE_BYTES`.

    Args:
        head: The first line; tells besides how many entries of the log are left out.
        parts: By name.
        log_lines: Oldest first.
        secrets: What must not be in it.
    """
    known = sorted(secrets, key=len, reverse=True)  # one may be a part of another
    bodies = [_line({"part": name, **_fielded(part)}, known) for name, part in parts.items()]
    entries = [_line(_entry(line), known) for line in log_lines]

    def packed(left_out: int) -> bytes:
        first = _line({"part": "bundle", **head, "log_lines_left_out": left_out}, known)
        return gzip.compress(b"\n".join((first, *bodies, *entries[left_out:], b"")), mtime=0)

    while bodies and len(packed(len(entries))) > MAX_DIAGNOSTICS_SIZE_BYTES:
        bodies.remove(max(bodies, key=len))
    fitting, too_few = len(entries), -1
    while fitting - too_few > 1:
        middle = (fitting + too_few) // 2
        if len(packed(middle)) <= MAX_DIAGNOSTICS_SIZE_BYTES:
            fitting = middle
        else:
            too_few = middle
    return packed(fitting)


def shown_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings without the arguments of commands, which may be secret."""
    shown: dict[str, Any] = msgspec.structs.asdict(settings)
    command = settings.readiness_command
    shown["readiness_command"] = [*command[:1], f"{len(command) - 1} argument(s)"] if command else []
    return shown


def _device(identity: Identity, state: Path) -> dict[str, Any]:
    hub = urlsplit(identity.hub_url)
    return {
        "device_id": identity.device_id,
        "hub": f"{hub.scheme}://{hub.hostname}:{hub.port}",
        "broker": f"{identity.broker.host}:{identity.broker.port}",
        "state": str(state),
        "sequence": read_sequence(state / "trust"),
    }


def _versions() -> dict[str, Any]:
    return {
        "agent": capabilities.agent_version(),
        "python": sys.version,
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
    }


def _system(state: Path) -> dict[str, Any]:
    disk = shutil.disk_usage(state)
    return {
        "uptime_s": float(Path("/proc/uptime").read_text().split()[0]),
        "load": os.getloadavg(),
        "processors": os.cpu_count(),
        "memory": _fields(Path("/proc/meminfo"), _OF_MEMORY),
        "disk": {"total_bytes": disk.total, "free_bytes": disk.free},
    }


def _process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "status": _fields(Path("/proc/self/status"), _OF_PROCESS),
        "smaps_rollup": _fields(Path("/proc/self/smaps_rollup"), None),
        "cpu_s": time.process_time(),
        "log_level": logging.getLevelName(logging.getLogger().level).lower(),
    }


def _clock() -> dict[str, Any]:
    buffer = ctypes.create_string_buffer(1024)  # a struct timex of zeros: nothing is set
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return {
        "unix_s": time.time(),
        "monotonic_s": time.monotonic(),
        "zone": time.tzname,
        "utc_offset_s": time.localtime().tm_gmtoff,
        "synchronised": state != _NOT_SYNCHRONISED if state >= 0 else _SYNCHRONISED.exists() or None,
    }


def _fields(path: Path, wanted: set[str] | None) -> dict[str, str]:
    """Return the lines ``name: value`` of a file of /proc."""
    pairs = (line.partition(":")[::2] for line in path.read_text().splitlines() if _FIELD.match(line))
    return {name: value.strip() for name, value in pairs if wanted is None or name in wanted}


def _read(read: Callable[[], Any]) -> Any:
    """Return a part; why not, where it cannot be read: the others are wanted all the more."""
    try:
        return read()
    except (MusterError, OSError, ValueError, AttributeError) as error:
        return {"unreadable": f"{type(error).__name__}: {error}"}


def _fielded(part: Any) -> dict[str, Any]:
    value = msgspec.to_builtins(part)
    return value if isinstance(value, dict) else {"items": value}


def _entry(line: str) -> dict[str, Any]:
    """Return an entry of the log; its beginning as text, where it was too long to be kept whole."""
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"text": line}


def _line(fields: dict[str, Any], secrets: list[str]) -> bytes:
    """Return a line of the bundle without secrets, and without what would be too much."""
    line = msgspec.json.encode(_redacted(fields, secrets))
    if len(line) > MAX_LINE_BYTES:
        line = msgspec.json.encode({"part": fields.get("part", "log"), "left_out": f"{len(line)} bytes"})
    return line


def _redacted(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, BLACKED_OUT)
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _secrets(identity: Identity) -> list[str]:
    """Return every secret that the device knows."""
    url = urlsplit(identity.hub_url)
    tokens = [value for key, value in os.environ.items() if key.startswith("MUSTER_") and "TOKEN" in key]
    return [secret for secret in (identity.broker.password, url.password, *tokens) if secret]
