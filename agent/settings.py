"""The agent's settings: ``agent.toml`` in the state folder, checked when it is read.

Every setting has a default; the file holds only those that were given. What each is for, and its unit, stands
in ``docs/reference/agent-settings.md``. Secrets are not settings: see `agent.identity`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agent import durable
from agent.life.maintenance import parse_windows
from agent.runtimes.providers import check_providers
from fleet.privacy.noise import LEAST_EPSILON, MOST_EPSILON
from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.names import checked_name

FILE_NAME = "agent.toml"
_HEADER = (
    "# Settings of the Muster agent; docs/reference/agent-settings.md explains each. Restart to apply.\n"
)

Seconds = Annotated[float, msgspec.Meta(gt=0, le=7 * 86400)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
Number = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Line = Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]*\Z")]
"""Text that can be an argument of a command."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set; the reference page explains each."""

    heartbeat_interval_s: Seconds = 30.0
    hello_interval_s: Seconds = 300.0
    telemetry_interval_s: Seconds = 60.0
    sensors_interval_s: Seconds = 10.0

    trial_s: Seconds = 60.0
    trial_minimum_predictions: Annotated[int, msgspec.Meta(ge=0)] = 0
    trial_limit_s: Seconds = 3600.0
    trial_maximum_errors: Annotated[int, msgspec.Meta(ge=0)] = 3
    trial_golden_interval_s: Seconds = 30.0
    trial_latency_factor: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 10.0
    trial_latency_limit_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    trial_memory_limit_bytes: Bytes = 256 * 1024**2
    trial_reserve_memory_bytes: Bytes = 16 * 1024**2
    shadow_cpu_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.25
    shadow_memory_limit_bytes: Bytes = 256 * 1024**2
    inference_timeout_s: Seconds = 30.0
    stall_limit_s: Seconds = 60.0
    batch_limit: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16

    resend_interval_s: Seconds = 30.0
    resend_limit_s: Seconds = 600.0
    records_in_flight: Number = 32
    records_per_second: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 20.0
    outbox_budget_bytes: Bytes = 8 * 1024**2
    count_noise_epsilon: Annotated[float, msgspec.Meta(ge=0, le=MOST_EPSILON)] = 0.0

    fetch_timeout_s: Seconds = 10.0
    fetch_attempts: Number = 5
    trust_refresh_interval_s: Seconds = 3600.0
    delivery_timeout_s: Seconds = 10.0
    delivery_attempts: Number = 8
    delivery_digest_attempts: Number = 3
    delivery_window_chunks: Number = 256
    reserve_free_bytes: Bytes = 64 * 1024**2

    backoff_minimum_s: Seconds = 0.5
    backoff_maximum_s: Seconds = 60.0
    keepalive_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 30

    socket_path: str = ""
    socket_access: Literal["account", "group"] = "account"
    fast_socket_path: str = ""
    fast_connections: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 16
    tcp_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    request_limit_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**30)] = 4 * 1024**2
    shared_memory: bool = False

    execution_providers: tuple[str, ...] = ()
    litert_delegate: str = ""
    onnx_prepacking: Literal["auto", "always", "never"] = "auto"
    model_memory_limit_bytes: Bytes = 0
    models_memory_limit_bytes: Bytes = 0

    allow_sample_capture: bool = False
    sample_bytes_per_day: Bytes = 16 * 1024**2
    sample_spool_bytes: Bytes = 8 * 1024**2
    sample_redaction: str = ""
    sample_redaction_command: Annotated[tuple[Line, ...], msgspec.Meta(max_length=64)] = ()
    sample_redaction_timeout_s: Seconds = 10.0

    maintenance_windows: Annotated[tuple[Line, ...], msgspec.Meta(max_length=64)] = ()
    readiness_command: Annotated[tuple[Line, ...], msgspec.Meta(max_length=64)] = ()
    readiness_timeout_s: Seconds = 10.0
    readiness_interval_s: Seconds = 30.0
    forced_updates: bool = True

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"

    def socket(self, state: Path) -> Path:
        """Return where the local inference API listens."""
        return Path(self.socket_path) if self.socket_path else state / "agent.sock"

    def fast_socket(self, state: Path) -> Path:
        """Return where the fast path listens: beside the inference API unless it is set."""
        beside = self.socket(state)
        default = beside.with_name(f"{beside.stem}-fast{beside.suffix}")
        return Path(self.fast_socket_path) if self.fast_socket_path else default


def parse_settings(given: dict[str, Any]) -> Settings:
    """Return the settings with the given values in place of defaults.

    Raises:
        InvalidConfiguration: A setting is unknown, or its value cannot be used.
        InvalidName: The redaction's name breaks the naming rule.
    """
    try:
        settings = msgspec.convert(given, Settings)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(
            f"The settings cannot be used: {error}.", remedy="See docs/reference/agent-settings.md."
        ) from error
    check_providers(settings.execution_providers)
    if settings.litert_delegate and not Path(settings.litert_delegate).is_absolute():
        raise InvalidConfiguration("litert_delegate is no absolute path.")
    if settings.backoff_maximum_s < settings.backoff_minimum_s:
        raise InvalidConfiguration("backoff_maximum_s is below backoff_minimum_s.")
    if 0.0 < settings.count_noise_epsilon < LEAST_EPSILON:
        raise InvalidConfiguration(f"count_noise_epsilon is neither 0 nor at least {LEAST_EPSILON}.")
    parse_windows(settings.maintenance_windows)
    _check_redaction(settings)
    return settings


def _check_redaction(settings: Settings) -> None:
    command = settings.sample_redaction_command
    if bool(command) != bool(settings.sample_redaction):
        raise InvalidConfiguration("sample_redaction and sample_redaction_command belong together.")
    if command:
        checked_name(settings.sample_redaction, "redaction")
    if command and not Path(command[0]).is_absolute():
        raise InvalidConfiguration("The program in sample_redaction_command is no absolute path.")


def read_settings(state: Path) -> Settings:
    """Return the settings of a state folder; the defaults if it has no file.

    Raises:
        InvalidConfiguration: The file cannot be read or used.
    """
    return parse_settings(read_given(state))


def read_given(state: Path) -> dict[str, Any]:
    """Return what stands in a state folder's file, as it stands there; nothing if there is no file.

    Raises:
        InvalidConfiguration: The file cannot be read.
    """
    path = state / FILE_NAME
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(
            f"{path} cannot be read: {error}.", remedy="Mend it, or remove it to use the defaults."
        ) from error


def write_settings(state: Path, given: dict[str, Any]) -> None:
    """Write the given settings, checked, to a state folder.

    Raises:
        InvalidConfiguration: They cannot be used; nothing was written.
        StorageError: The file cannot be written.
    """
    parse_settings(given)
    # A JSON number, boolean, string or list is the same text in TOML, so nothing is needed to write it.
    lines = "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in given.items())
    durable.write_file(state / FILE_NAME, (_HEADER + lines).encode(), mode=durable.PRIVATE)


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """Return ``name=value`` texts of a command line as settings; values that are not JSON are text.

    Raises:
        InvalidConfiguration: One has no ``=``.
    """
    return {name: _value(text) for name, text in split_pairs(pairs)}


def split_pairs(pairs: list[str]) -> list[tuple[str, str]]:
    """Return ``name=value`` texts taken apart.

    Raises:
        InvalidConfiguration: One has no ``=``.
    """
    split = [pair.partition("=") for pair in pairs]
    for name, equals, _ in split:
        if not equals or not name:
            raise InvalidConfiguration(f"{name!r:.80} is not of the form name=value.")
    return [(name, text) for name, _, text in split]


def _value(text: str) -> int | float | bool | str | list[str]:
    try:
        return msgspec.json.decode(text, type=int | float | bool | str | list[str])
    except msgspec.DecodeError:
        return text
