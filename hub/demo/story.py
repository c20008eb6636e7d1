"""The demo's story, step by step; a step ends only when the hub has heard from devices that it came true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from converters.data.dataset import write_dataset
from hub.cli.models import wait_for_training
from hub.demo.images import rotated
from hub.demo.stage import MODEL, Stage, StepFailed
from hub.plan_file import read_values
from hub.training.train import TARGETS

DIGITS, ROTATED = "digits", "digits-rescanned"
SLOW_S, QUICK_S = 60.0, 30.0
DIRTY_CAMERAS = 2
LOOKS_AFTER_DIRT = 4

PLAN = (resources.files("hub.demo") / "plan.yaml").read_text(encoding="utf-8")
"""How versions go out: see the file."""

Say = Callable[[str], None]


@dataclass
class Findings:
    """What the story found out, for the closing table.

    Attributes:
        accuracy: Held-out accuracy of each version's variants, as the hub measured it.
        alarmed: The devices that the drift alarm named, with its evidence.
    """

    accuracy: dict[int, dict[str, float]] = field(default_factory=dict)
    alarmed: dict[str, str] = field(default_factory=dict)


class Story:
    """The seven steps.

    Args:
        stage: Where it is played.
        say: Tells the person who watches.
    """

    def __init__(self, stage: Stage, say: Say) -> None:
        self._stage = stage
        self._say = say
        self.findings = Findings()

    @property
    def steps(self) -> tuple[tuple[str, Callable[[], Awaitable[None]]], ...]:
        """The steps with their titles."""
        count = len(self._stage.device_ids)
        return (
            ("The hub initialises itself", self._initialise),
            ("Version 1 is trained, quantized, signed and released", self._first_version),
            (f"{count} devices enrol and install version 1", self._enrol),
            ("Version 2 is better and goes out in stages", self._better_version),
            ("Version 3 misbehaves in the field and is taken back", self._harmful_version),
            (f"{DIRTY_CAMERAS} cameras get dirty lenses", self._dirty_lenses),
            ("An operator rolls the fleet back to version 1", self._roll_back),
        )

    async def _initialise(self) -> None:
        await self._stage.start_hub()
        address = self._stage.address
        assert address is not None
        self._say(f"API at {address.url}, {address.broker} at {address.mqtt_host}:{address.mqtt_port}")
        health = await self._stage.ask("/fleet/health")
        _expect(health["devices"] == 0, "a new hub has devices already")

    async def _first_version(self) -> None:
        await self._register(DIGITS, self._stage.digits.registered)
        await self._train(1, DIGITS, "logistic", {"training_share": 0.1})

    async def _enrol(self) -> None:
        await self._stage.start_agents()
        await self._stage.until("every device is online", self._all_online, timeout_s=SLOW_S)
        plan, _ = read_values(PLAN)
        number = await self._roll_out(1, {**plan, "stages": plan["stages"][-1:]})
        await self._ended(number, "SUCCEEDED")
        await self._all_run(1)

    async def _better_version(self) -> None:
        await self._train(2, DIGITS, "mlp", {"hidden": 64})
        for line in PLAN.splitlines():
            self._say(f"plan | {line}")
        await self._tell_dry_run(2)
        number = await self._roll_out(2, PLAN)
        rollout = await self._ended(number, "SUCCEEDED")
        _expect(all(s["verdict"] == "PASS" for s in rollout["stages"]), "a stage was not judged PASS")
        await self._all_run(2)

    async def _harmful_version(self) -> None:
        await self._register(ROTATED, rotated(self._stage.digits.registered))
        await self._train(3, ROTATED, "mlp", {"hidden": 64})
        number = await self._roll_out(3, PLAN)
        rollout = await self._ended(number, "ROLLED_BACK")
        cause = rollout["cause"]
        _expect(cause["code"] == "gate_failed", f"the cause is {cause['code']}, not the gate's verdict")
        await self._all_run(2)
        touched = {row["device_id"] for row in await self._totals() if row["version"] == 3}
        parts = (await self._stage.ask(f"/rollouts/{number}/devices", stage=1))["items"]
        canaries = {part["device_id"] for part in parts}
        _expect(touched == canaries, f"version 3 answered on {sorted(touched)}, beyond the canary")
        self._say(f"version 3 answered on {', '.join(sorted(touched))} alone, which is back on version 2")

    async def _dirty_lenses(self) -> None:
        ids = self._stage.device_ids
        dirty = sorted(ids[(self._stage.seed + step) % len(ids)] for step in (1, 1 + len(ids) // 2))
        looks = {row["device_id"]: row["looks"] for row in await self._drift()}
        _expect(not await self._alarmed(), "a drift alarm was raised before any lens was dirty")
        for device_id in dirty:
            self._stage.cameras[device_id].is_dirty = True
        self._say(f"dirt on {' and '.join(dirty)}")

        def looked() -> bool:
            rows = self._stage.client.pages("/drift", model=MODEL)
            now = {row["device_id"]: row["looks"] for row in rows if row["version"] == 2}
            return all(now.get(name, 0) >= looks.get(name, 0) + LOOKS_AFTER_DIRT for name in ids)

        await self._stage.until("drift was looked at on every device", looked, timeout_s=SLOW_S)
        alarmed = await self._alarmed()
        _expect(sorted(alarmed) == dirty, f"the drift alarm names {sorted(alarmed) or 'nobody'}, not {dirty}")
        self.findings.alarmed = alarmed
        for device_id, evidence in alarmed.items():
            self._say(f"drift alarm: {device_id}, {evidence}")
        await self._alerted(dirty)

    async def _alerted(self, dirty: list[str]) -> None:
        """Wait until the alerts on drift fire and name these devices and no other; say what acts on them."""

        def firing() -> list[dict[str, Any]]:
            alerts = self._stage.client.get("/alerts")["items"]
            found = [alert for alert in alerts if alert["kind"] == "drift" and alert["state"] == "FIRING"]
            return found if {name for alert in found for name in alert["devices"]} == set(dirty) else []

        what = f"the alerts on drift name {' and '.join(dirty)}"
        for alert in await self._stage.until(what, firing, timeout_s=QUICK_S):
            self._say(f"alert: {alert['sentence']} Act: {alert['command']}")

    async def _roll_back(self) -> None:
        before = {row["device_id"]: row["predictions"] for row in await self._totals() if row["version"] == 1}
        arguments = ("rollback", MODEL, "--to", "1", "--reason", "demonstration")
        self._say(f"$ muster {' '.join(arguments)}")
        await asyncio.to_thread(self._stage.command, *arguments)
        await self._all_run(1)

        def answering() -> bool:
            rows = self._stage.client.get("/fleet/totals", model=MODEL)["items"]
            now = {row["device_id"]: row["predictions"] for row in rows if row["version"] == 1}
            return all(now[name] > before[name] for name in self._stage.device_ids)

        await self._stage.until("version 1 answers again on every device", answering, timeout_s=QUICK_S)

    async def _register(self, name: str, dataset: Any) -> None:
        file = self._stage.folder / f"{name}.npz"
        write_dataset(file, dataset)
        row = await asyncio.to_thread(self._stage.client.upload, f"/datasets/{name}", file)
        self._say(f"dataset {name}: {row['samples']} images, SHA-256 {row['sha256'][:16]}…")

    async def _train(
        self, expected: int, dataset: str, estimator: str, hyperparameters: dict[str, Any]
    ) -> None:
        body = {
            "dataset": dataset,
            "estimator": estimator,
            "hyperparameters": hyperparameters,
            "seed": self._stage.seed,
            "minimum_accuracy": 0.75,
        }
        version = await self._stage.tell(f"/models/{MODEL}/versions", body)
        version = await asyncio.to_thread(wait_for_training, self._stage.client, version, show_progress=False)
        _expect(version["version"] == expected, f"version {version['version']} was made, not {expected}")
        packed = [variant for variant in version["report"]["variants"] if variant["packed"]]
        self.findings.accuracy[expected] = {v["name"]: v["evaluation"]["value"] for v in packed}
        _expect(set(TARGETS) == set(self.findings.accuracy[expected]), "a variant was not packed")
        shown = ", ".join(
            f"{v['name']} {v['evaluation']['value']:.1%} in {v['size_bytes']:,} bytes" for v in packed
        )
        self._say(f"version {expected} on the hub's held-out images: {shown}")
        await self._stage.tell(f"/models/{MODEL}/versions/{expected}/release")

    async def _tell_dry_run(self, version: int) -> None:
        """Say what the plan would do, before anything moves."""
        body = {"model": MODEL, "version": version, "plan": PLAN, "seed": self._stage.seed}
        told = await self._stage.tell("/rollouts/dry-run", body)
        for stage in told["stages"]:
            names = ", ".join(stage["named"])
            self._say(f"dry run | {stage['name']}: {names}, {stage['broadcast_bytes']:,} bytes by broadcast")
        _expect(told["refusals"] == [], f"a camera would not follow: {told['refusals']}")

    async def _roll_out(self, version: int, plan: str | dict[str, Any]) -> int:
        body = {"model": MODEL, "version": version, "plan": plan, "seed": self._stage.seed}
        number: int = (await self._stage.tell("/rollouts", body))["number"]
        await self._stage.tell(f"/rollouts/{number}/start")
        return number

    async def _ended(self, number: int, status: str) -> dict[str, Any]:
        """Follow a rollout to its end, saying its history as it grows."""
        said = 0
        deadline_s = time.monotonic() + 2 * SLOW_S
        while True:
            self._stage.check()
            history = (await self._stage.ask(f"/rollouts/{number}/history"))["items"]
            for entry in history[said:]:
                self._say(f"rollout {number}: {entry['text']}")
            said = len(history)
            rollout: dict[str, Any] = await self._stage.ask(f"/rollouts/{number}")
            if rollout["status"] in {"SUCCEEDED", "ROLLED_BACK", "FAILED", "ABORTED", "PAUSED"}:
                cause = (rollout["cause"] or {}).get("detail", "no cause")
                _expect(rollout["status"] == status, f"rollout {number} is {rollout['status']}: {cause}")
                return rollout
            _expect(time.monotonic() < deadline_s, f"rollout {number} is still {rollout['status']}")
            await asyncio.sleep(0.2)

    async def _all_run(self, version: int) -> None:
        """Wait until every device itself reports that it has committed the version."""

        def holds() -> bool:
            devices = list(self._stage.client.pages("/devices"))
            states = [state for device in devices for state in device["models"]]
            running = [s for s in states if s["version"] == version and s["phase"] == "COMMITTED"]
            return len(running) == len(self._stage.device_ids)

        await self._stage.until(f"every device runs version {version}", holds, timeout_s=QUICK_S)
        self._say(f"all {len(self._stage.device_ids)} devices report version {version}, committed")

    def _all_online(self) -> bool:
        online: bool = self._stage.client.get("/fleet/health")["online"] == len(self._stage.device_ids)
        return online

    async def _totals(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self._stage.ask("/fleet/totals", model=MODEL))["items"]
        return rows

    async def _drift(self) -> list[dict[str, Any]]:
        rows = (await self._stage.ask("/drift", model=MODEL, limit=1000))["items"]
        return [row for row in rows if row["version"] == 2]

    async def _alarmed(self) -> dict[str, str]:
        return {
            row["device_id"]: "; ".join(
                f"{f['feature']}: {f['share']:.0%} of values {f['split']}, not {f['expected']:.0%}"
                for f in row["features"]
                if f["alarm"]
            )
            for row in await self._drift()
            if row["alarm"]
        }


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise StepFailed(f"{otherwise[:1].upper()}{otherwise[1:]}.")
