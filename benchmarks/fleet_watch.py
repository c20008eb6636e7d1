"""Starts the rollout of the fleet benchmark over the hub's API and looks at it until it has ended."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import accumulate, pairwise
from typing import NamedTuple

import httpx

from benchmarks.fleet_crowd import Crowd
from benchmarks.fleet_hub import NEW, HubProcess
from benchmarks.fleet_usage import UsageMeter
from benchmarks.fleet_windows import MODEL
from fleet.protocol.errors import HubUnavailable
from hub.cli.client import Client

LOOK_S = 0.25
LOOKS_BETWEEN_METRICS = 20
"""They cost the hub more than a look at the rollout."""
ROLLOUT_LIMIT_S = 1800.0
COUNT_LIMIT_S = 120.0
KILLED_IN_STAGE = 3
ENDS = frozenset({"SUCCEEDED", "ABORTED", "ROLLED_BACK", "FAILED", "PAUSED"})
"""Nobody is there to resume a rollout that pauses."""


class Stage(NamedTuple):
    """One stage as it went.

    Attributes:
        devices: That it added.
        took_s: From its begin to the next one's.
        ordered_s: From the first of its devices that took its order to the last.
    """

    devices: int
    took_s: float
    ordered_s: float


class Course(NamedTuple):
    """How a rollout went.

    Attributes:
        status: How it ended.
        said: What was said of it at last.
        counts: Devices by outcome.
        stages: Those that began.
        took_s: From the start to the end.
        published_bytes: Bytes of blobs that every hub process published.
    """

    status: str
    said: str
    counts: Mapping[str, int]
    stages: list[Stage]
    took_s: float
    published_bytes: int


class Watch:
    """Starts the rollout and looks at it until it has ended; called in a thread."""

    def __init__(self, hub: HubProcess, token: str, meter: UsageMeter, crowd: Crowd, kill: bool) -> None:
        self._hub, self._token, self._meter, self._crowd = hub, token, meter, crowd
        self._kill = kill
        self._number = 0
        self._begins_s: list[float] = []
        self._sizes: list[int] = []
        self._begun_s = 0.0
        self._published: list[int] = [0]
        self._looks = 0
        self._took_s = 0.0
        self._status = self._said = ""
        self._counts: Mapping[str, int] = {}

    def wait_heard(self, devices: int) -> None:
        """Wait until the hub has heard of every device."""
        with closing(self._client()) as client:
            while client.get("/fleet/health")["online"] < devices:
                time.sleep(LOOK_S)
        self._meter.look(self._hub.pid)

    def start(self, plan: str) -> None:
        """Create and start the rollout."""
        with closing(self._client()) as client:
            made = client.post("/rollouts", {"model": MODEL, "version": NEW, "plan": plan, "seed": 1})
            self._number = made["number"]
            self._begun_s = time.perf_counter()
            client.post(f"/rollouts/{self._number}/start")

    def until_ended(self) -> None:
        """Look until the rollout has ended, or for `ROLLOUT_LIMIT_S`."""
        client = self._client()
        while not self._look(client) and time.perf_counter() - self._begun_s < ROLLOUT_LIMIT_S:
            self._meter.look(self._hub.pid)
            if self._kill and len(self._begins_s) >= KILLED_IN_STAGE:
                self._kill = False
                client.close()
                self._look_at_blobs()
                self._hub.kill()
                progress("the hub is killed")
                self._published.append(0)
                self._hub.start()
                client = self._client()
            time.sleep(LOOK_S)
        client.close()
        self._took_s = time.perf_counter() - self._begun_s
        progress(f"the rollout is {self._status}. {self._said}")

    def wait_counted(self) -> None:
        """Wait until the telemetry pass has counted what came."""
        deadline_s = time.perf_counter() + COUNT_LIMIT_S
        while self._metric("muster_telemetry_waiting_records") > 0 and time.perf_counter() < deadline_s:
            time.sleep(LOOK_S)
        self._look_at_blobs()
        self._meter.look(self._hub.pid)

    def course(self) -> Course:
        """Return how the rollout went."""
        return Course(
            self._status, self._said, self._counts, self._stages(), self._took_s, sum(self._published)
        )

    def _stages(self) -> list[Stage]:
        ends_s = [*self._begins_s[1:], self._took_s]
        ordered_s = self._crowd.fleet.ordered_s
        places = pairwise([0, *accumulate(self._sizes)])
        return [
            Stage(end - first, end_s - begun_s, ordered_s[end - 1] - ordered_s[first])
            for (first, end), begun_s, end_s in zip(places, self._begins_s, ends_s, strict=False)
            if end <= len(ordered_s)
        ]

    def _look(self, client: Client) -> bool:
        """Note where the rollout stands; tell whether it has ended."""
        now_s = time.perf_counter() - self._begun_s
        try:
            row = client.get("/rollouts", limit=1)["items"][0]
        except HubUnavailable:
            return False
        self._sizes = [stage["devices"] for stage in row["stages"]]
        self._status, self._counts = row["status"], row["counts"]
        self._said = row["pause_reason"] or row["verdict"] or ""
        while len(self._begins_s) < row["stage"]:
            self._begins_s.append(now_s)
        self._looks += 1
        if self._looks % LOOKS_BETWEEN_METRICS == 0:
            self._look_at_blobs()
        return self._status in ENDS

    def _look_at_blobs(self) -> None:
        self._published[-1] = int(self._metric("muster_blob_published_bytes_total"))

    def _metric(self, name: str) -> float:
        headers = {"Authorization": f"Bearer {self._token}"}
        text = httpx.get(f"{self._hub.address.url}/metrics", headers=headers, timeout=60.0).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _client(self) -> Client:
        return Client(self._hub.address.url, self._token)


def progress(text: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"  {text}\n")
