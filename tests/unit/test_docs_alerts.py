"""The guide on alerts: its example can be used, its check accepts what is sent, and nothing is left out."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import pytest

from fleet.alerts.alert import KINDS
from fleet.alerts.telling import Occasion
from fleet.alerts.thresholds import Thresholds
from hub.alerts.alerting import senders
from hub.alerts.messages import webhook_body
from hub.alerts.receivers import Alertmanager, Email, Secret, Webhook
from hub.alerts.settings import ALERTS_FILE, AlertSettings, Route, read_alert_settings
from hub.alerts.webhook import signature
from hub.store.alert_rows import AlertMessage
from tests.support.alerts import firing

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "alerts.md").read_text()


def _block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


def test_the_example_is_a_file_that_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ALERTS_FILE).write_text(_block("toml"))
    (tmp_path / "pager.secret").write_text("0123456789abcdef")
    monkeypatch.setenv("MAIL_PASSWORD", "a password")
    settings = read_alert_settings(tmp_path)
    assert set(senders(settings, tmp_path)) == {"pager", "people", "alertmanager"}


def test_the_check_accepts_what_is_sent_and_nothing_else() -> None:
    given: dict[str, object] = {}
    exec(_block("python"), given)  # as a reader would run it
    is_genuine = given["is_genuine"]
    assert callable(is_genuine)
    body = webhook_body(AlertMessage("key", "ops", Occasion.RAISED, firing("cam-1"), 1.0, 1.0), "")
    now_s = time.time()
    signed = signature(Secret("0123456789abcdef"), body, now_s)
    assert is_genuine("0123456789abcdef", signed, body)
    assert not is_genuine("another secret 0", signed, body)
    assert not is_genuine("0123456789abcdef", signed, body + b" ")
    for wrong in ("", "t=1", "v1=2", "nonsense", signed.replace("t=", "t=1"), signed.partition(",")[0]):
        assert not is_genuine("0123456789abcdef", wrong, body)
    old = signature(Secret("0123456789abcdef"), body, now_s - 3600)
    assert not is_genuine("0123456789abcdef", old, body), "a recorded message cannot be sent again later"


@pytest.mark.parametrize("shape", [AlertSettings, Thresholds, Route, Webhook, Alertmanager, Email])
def test_every_setting_is_documented(shape: type[msgspec.Struct]) -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert [field.name for field in msgspec.structs.fields(shape) if field.name not in named] == []


def test_every_default_is_the_one_documented() -> None:
    for shape in (AlertSettings, Thresholds):
        for field in msgspec.structs.fields(shape):
            if isinstance(field.default, int | float):
                assert f"| `{field.name}` | `{field.default:g}` |" in PAGE, field.name


def test_every_kind_is_documented() -> None:
    table = PAGE[PAGE.index("## What is found") : PAGE.index("## Who is told")]
    assert [kind for kind in KINDS if f"`{kind}`" not in table] == []
