"""``alerts.toml``: what it means, and that what is wrong in it is refused with the line and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.alerts.matching import Match
from fleet.protocol.errors import InvalidConfiguration
from hub.alerts.alerting import senders
from hub.alerts.pace import FIRST_WAIT_S, LONGEST_WAIT_S, Allowance, retry_wait_s
from hub.alerts.receivers import Secret
from hub.alerts.settings import ALERTS_FILE, NO_ALERTS_FILE, AlertSettings, read_alert_settings

GOOD = """\
repeat_interval_s = 7200

[rules]
offline_share = 0.2

[[receiver]]
name = "ops"
kind = "webhook"
url = "https://ops.example.org/muster"
secret_file = "ops.secret"

[[receiver]]
name = "people"
kind = "email"
host = "mail.example.org"
sender = "muster@example.org"
to = ["ana@example.org"]

[[receiver]]
name = "am"
kind = "alertmanager"
url = "http://127.0.0.1:9093"

[[route]]
receivers = ["ops", "am"]

[[route]]
receivers = ["people"]
kinds = ["drift"]
severities = ["critical"]
"""


def _read(folder: Path, text: str) -> AlertSettings:
    (folder / ALERTS_FILE).write_text(text)
    return read_alert_settings(folder)


def test_a_good_file_says_who_is_told_of_what(tmp_path: Path) -> None:
    settings = _read(tmp_path, GOOD)
    assert [(r.name, r.kind) for r in settings.receiver] == [
        ("ops", "webhook"),
        ("people", "email"),
        ("am", "alertmanager"),
    ]
    assert settings.rules.offline_share == 0.2
    assert [route.receivers for route in settings.routes] == [("ops", "am"), ("people",)]
    assert settings.routes[0].match == Match()
    ops, people, alertmanager = (settings.terms(receiver) for receiver in settings.receiver)
    assert (ops.repeat_s, ops.refreshes) == (7200.0, False)
    assert people == ops
    assert (alertmanager.repeat_s, alertmanager.refreshes) == (60.0, True)


def test_without_a_file_nobody_is_told(tmp_path: Path) -> None:
    assert read_alert_settings(tmp_path) == NO_ALERTS_FILE
    assert NO_ALERTS_FILE.routes == ()


def test_without_routes_everybody_is_told_of_everything(tmp_path: Path) -> None:
    settings = _read(tmp_path, GOOD[: GOOD.index("[[route]]")])
    assert [route.receivers for route in settings.routes] == [("ops", "people", "am")]


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("offline_share = 0.2", "offline_share = 2", 4, "<= 1.0"),
        ("offline_share = 0.2", "offline_shares = 0.2", 4, "offline_shares"),
        ("repeat_interval_s = 7200", "repeat_interval_s = 'often'", 1, "float"),
        ("repeat_interval_s = 7200", "repeat_interval = 1", 1, "repeat_interval"),
        ('"webhook"', '"pager"', 8, "pager"),
        ("https://ops", "ftp://ops", 9, "regex"),
        ("https://ops", "https://eve:word@ops", 9, "regex"),
        ('secret_file = "ops.secret"', 'secret = "inline"', 10, "secret"),
        ('secret_file = "ops.secret"', "", 7, "secret_file or secret_env"),
        ('secret_file = "ops.secret"', 'secret_file = "a"\nsecret_env = "B"', 11, "two secrets"),
        ('"muster@example.org"', '"muster@example.org\\nBcc: eve@example.org"', 16, "regex"),
        ('["ana@example.org"]', '["ana@example.org, eve@example.org"]', 17, "regex"),
        ('["ana@example.org"]', "[]", 17, "length"),
        ('sender = "muster', 'username = "x"\nsender = "muster', 13, "password_file or password_env"),
        ('sender = "muster', 'password_env = "X"\nsender = "muster', 12, "needs a username"),
        (
            'sender = "muster',
            'username = "x"\npassword_env = "X"\nsecurity = "none"\nsender = "muster',
            18,
            "in the clear",
        ),
        ('name = "am"', 'name = "ops"', 20, "two receivers"),
        ('name = "am"', 'name = "AM"', 20, "regex"),
        ('["ops", "am"]', '["ops"]', 20, "No route leads"),
        ('["ops", "am"]', '["ops", "am", "pm"]', 25, "no receiver pm"),
        ('["ops", "am"]', '["ops", "ma"]', 25, "no receiver ma"),
        ('kinds = ["drift"]', 'kinds = ["drifts"]', 29, "no kind of alert"),
        ('["critical"]', '["fatal"]', 30, "fatal"),
        ("[rules]", "[rules", 3, "line 3"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, why: str
) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(InvalidConfiguration) as refused:
        _read(tmp_path, GOOD.replace(old, new))
    assert why in str(refused.value)
    assert f"line {line}" in str(refused.value)


def test_secrets_are_read_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(tmp_path, GOOD)
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        senders(settings, tmp_path)
    for text in ("", "\n", "two\nlines that are long enough", "short", "ümlauts are not ASCII at all"):
        (tmp_path / "ops.secret").write_text(text)
        with pytest.raises(InvalidConfiguration, match="secret"):
            senders(settings, tmp_path)
    (tmp_path / "ops.secret").write_text("long enough to be one\n")
    assert set(senders(settings, tmp_path)) == {"ops", "people", "am"}
    monkeypatch.setenv("OPS_SECRET", "another that is long enough")
    from_environment = _read(
        tmp_path, GOOD.replace('secret_file = "ops.secret"', 'secret_env = "OPS_SECRET"')
    )
    assert set(senders(from_environment, tmp_path)) == {"ops", "people", "am"}
    monkeypatch.delenv("OPS_SECRET")
    with pytest.raises(InvalidConfiguration, match="OPS_SECRET"):
        senders(from_environment, tmp_path)
    assert "hidden" not in f"{Secret('hidden')!r} {Secret('hidden')}"


def test_a_file_of_certificates_is_read_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ops.secret").write_text("long enough to be one")
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        text = GOOD.replace('secret_file = "ops.secret"', f'secret_file = "ops.secret"\nca_file = "{name}"')
        with pytest.raises(InvalidConfiguration, match="certificates"):
            senders(_read(tmp_path, text), tmp_path)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_waits_double_up_to_a_bound(jitter: float) -> None:
    waits = [retry_wait_s(attempts, jitter) for attempts in range(1, 100)]
    assert waits == sorted(waits)
    assert FIRST_WAIT_S / 2 <= waits[0] <= FIRST_WAIT_S
    assert waits[-1] <= LONGEST_WAIT_S
    assert waits[2] == 4 * waits[0]


def test_an_allowance_is_a_burst_and_then_a_rate() -> None:
    allowance = Allowance(6.0, 0.0)
    for _ in range(6):
        assert allowance.wait_s(0.0) == 0.0
        allowance.take(0.0)
    assert allowance.wait_s(0.0) == pytest.approx(10.0)
    assert allowance.wait_s(5.0) == pytest.approx(5.0)
    assert allowance.wait_s(10.0) == pytest.approx(0.0, abs=1e-9)
    allowance.take(10.0)
    assert allowance.wait_s(1e6) == 0.0
    sent = 0
    while allowance.wait_s(1e6) == 0.0:
        allowance.take(1e6)
        sent += 1
    assert sent == 6, "what was not used does not add up"
