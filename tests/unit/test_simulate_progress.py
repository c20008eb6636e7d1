"""What ``muster simulate`` says while it runs, where nobody sees a bar."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.cli import simulate_progress
from hub.cli.output import progress
from hub.cli.simulate import simulate
from hub.cli.simulate_progress import SENTENCE_S, Watched
from hub.simulation.rollout import SimulatedRollout
from hub.simulation.scenario import Fleet, Scenario
from tests.property.test_simulation import PLAN, plan


def test_a_sentence_is_said_now_and_then_and_no_more_often(capsys: pytest.CaptureFixture[str]) -> None:
    state = SimulatedRollout(plan(), Scenario(fleet=Fleet(devices=40)), seed=1).state
    now_s = 100.0
    with progress(show=True) as bar:
        watched = Watched(bar, 3, lambda: now_s)
        for second in range(35):
            now_s = 100.0 + second
            watched.look(2, state, 3600.0 + second)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 34 // int(SENTENCE_S)
    assert said[0].startswith("Run 2 of 3: after 60.2 min ")
    assert said[0].endswith(" the rollout is CREATED in stage 0 of 2; 0% of its 40 devices have ended.")


def test_the_command_says_how_far_it_is_and_answers_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    answers = []
    for every_s in (3600.0, 0.0):
        monkeypatch.setattr(simulate_progress, "SENTENCE_S", every_s)
        simulate(path, devices=20, as_json=True)
        answers.append(capsys.readouterr())
    silent, talkative = answers
    assert silent.out == talkative.out
    *said, last = talkative.err.splitlines()
    assert silent.err.splitlines()[:-1] == []
    assert last.startswith("Simulated in ")
    assert len(said) > 10
    assert said[0] == "After 1 s the rollout is RUNNING in stage 1 of 2; 0% of its 20 devices have ended."
    assert said[-1].endswith(" 100% of its 20 devices have ended.")
