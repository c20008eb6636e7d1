"""What benchmarks print can be read: by people at 120 columns, and line by line by programs."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.agent import _turn
from benchmarks.aims import Aim
from benchmarks.inference import points
from benchmarks.measure import median_calls_s, run_program
from benchmarks.serving import processes
from benchmarks.serving.footprint import REST, parts
from benchmarks.serving.load import Unanswered, receive
from benchmarks.serving.models import MODELS
from benchmarks.serving.report import MANY, Found, Load, aims, median_load
from benchmarks.serving.servers import Route
from benchmarks.table import WIDTH, table

LINE = re.compile(r"AIM ([a-z0-9-]+) (-|-?[0-9.]+|nan|inf) (<=|>=)([0-9.]+) (OK|MISS)( .+)?")


@pytest.mark.parametrize(
    ("aim", "line"),
    [
        (Aim("points-lost-mlp", 0.1675, "<=", 0.5), "AIM points-lost-mlp 0.168 <=0.5 OK"),
        (Aim("points-lost-mlp", -0.1675, "<=", 0.5), "AIM points-lost-mlp -0.168 <=0.5 OK"),
        (Aim("size-ratio", 0.36, "<=", 0.36), "AIM size-ratio 0.36 <=0.36 OK"),
        (Aim("size-ratio", 0.3601, "<=", 0.36), "AIM size-ratio 0.3601 <=0.36 MISS"),
        (Aim("speedup", 19.996, ">=", 20.0), "AIM speedup 19.996 >=20 MISS"),
        (Aim("speedup", 20.0, ">=", 20.0), "AIM speedup 20 >=20 OK"),
        (Aim("speedup", 123456.7, ">=", 20.0), "AIM speedup 123457 >=20 OK"),
        (Aim("speedup", 0.0, ">=", 20.0), "AIM speedup 0 >=20 MISS"),
        (Aim("speedup", None, ">=", 20.0, "not installed"), "AIM speedup - >=20 MISS not installed"),
        (Aim("speedup", None, ">=", 20.0, "not\ninstalled\n"), "AIM speedup - >=20 MISS not installed"),
        (Aim("speedup", math.nan, ">=", 20.0), "AIM speedup nan >=20 MISS"),
    ],
)
def test_an_aim_is_one_line(aim: Aim, line: str) -> None:
    assert str(aim) == line
    assert LINE.fullmatch(line)


def test_what_is_shown_never_contradicts_the_verdict() -> None:
    for measured in np.random.RandomState(0).uniform(0.359, 0.361, 200):
        shown, verdict = str(Aim("ratio", float(measured), "<=", 0.36)).split()[2::2]
        assert (float(shown) <= 0.36) == (verdict == "OK")


def test_a_table_puts_numbers_to_the_right_and_words_to_the_left() -> None:
    assert table("Things", ["name", "bytes", "ratio"], [["a", "1,200", "-"], ["long name", "7", "0.5"]]) == (
        "Things\n"
        "name       bytes  ratio\n"
        "---------  -----  -----\n"
        "a          1,200      -\n"
        "long name      7    0.5"
    )


def test_a_long_note_is_shortened_to_the_width_of_a_terminal() -> None:
    lines = table("Things", ["name"], [["a"]], ["short", "x" * (WIDTH + 1)]).splitlines()
    assert lines[-2:] == ["short", "x" * (WIDTH - 1) + "…"]


def test_a_program_that_fails_gives_the_error_that_came_first(tmp_path: Path) -> None:
    program = "try:\n    int('x')\nexcept ValueError as error:\n    raise RuntimeError('second') from error"
    run = run_program([sys.executable, "-c", program], tmp_path / "log.txt", timeout_s=60)
    assert run.failure == "ValueError: invalid literal for int() with base 10: 'x'"


def test_a_program_is_measured_by_its_own_memory(tmp_path: Path) -> None:
    program = "data = bytearray(300_000_000)\nfor i in range(0, len(data), 4096): data[i] = 1"
    run = run_program([sys.executable, "-c", program], tmp_path / "log.txt", timeout_s=60)
    assert run.failure == ""
    assert run.peak_bytes > 300_000_000
    assert run.wall_s > 0


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    program = "import threading; threading.Event().wait()"
    run = run_program([sys.executable, "-c", program], tmp_path / "log.txt", timeout_s=0.2)
    assert run.failure == "exit status -9"


def test_calls_take_turns() -> None:
    called: list[str] = []
    medians = median_calls_s(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=30, burst=2, budget_s=60.0
    )
    assert called == ["a", "a", "a", "b", "b", "b"] * 30  # the first of three is not timed
    assert set(medians) == {"a", "b"}


def test_no_round_begins_after_the_budget_but_the_fewest() -> None:
    called: list[str] = []
    median_calls_s({"a": lambda: called.append("a")}, rounds=30, burst=1, budget_s=0.0, fewest_rounds=3)
    assert len(called) == 3 * 2


def test_points_of_accuracy_and_of_the_area_under_the_curve() -> None:
    samples = np.zeros((4, 2), np.float32)
    labels = np.array([0, 1, 0, 1])
    answers = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    assert points("accuracy", answers, samples, labels) == 75.0
    errors = np.array([[1, 1], [2, 2], [1, 1], [1, 1]], np.float32)  # of the anomalies one above, one even
    assert points("auroc", errors, samples, labels) == 75.0


def test_a_server_is_measured_with_its_children() -> None:
    program = (
        "import subprocess, sys\n"
        "child = 'x = bytearray(50_000_000); print(sum(range(3_000_000)), flush=True); input()'\n"
        "subprocess.run([sys.executable, '-c', child])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(processes.family(process.pid)) == 2
        size = processes.memory(process.pid)
        assert size.rss_bytes >= size.pss_bytes > 50_000_000
        assert processes.cpu_s(process.pid) > 0.01
        assert process.stdin is not None
        process.stdin.close()


def test_parts_of_memory_sum_to_the_agents() -> None:
    by_part = parts({"interpreter": 10, "numpy": 25}, processes.Memory(40, 30))
    assert by_part == {"interpreter": 10, "numpy": 15, REST: 15}


def test_what_was_not_measured_of_the_agent_is_missed_with_its_reason() -> None:
    lines = [str(aim) for aim in aims(Found(failures={"mlserver": "could not be installed"}))]
    names = [line.split()[1] for line in lines]
    assert len(set(names)) == len(names) > 10
    assert all(LINE.fullmatch(line) and " MISS " in line for line in lines)
    assert "AIM rest-json-to-mlserver-mlp - >=12 MISS could not be installed" in lines


def test_a_way_whose_client_failed_is_missed_and_the_others_go_on(tmp_path: Path) -> None:
    found, model = Found(), MODELS[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and ends without an answer
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ways = [Route(f"muster {way}", "http", address, b"x") for way in "ab"]

        def hang_up() -> None:
            for _ in ways:
                listener.accept()[0].close()

        hanging = threading.Thread(target=hang_up)
        hanging.start()
        assert list(_turn(ways, os.getpid(), model, 1, tmp_path, found=found, seconds=0.1)) == []
        hanging.join()
    assert set(found.lost) == {(model.name, way.name) for way in ways}
    assert list(_turn(ways, os.getpid(), model, 1, tmp_path, found=found, seconds=0.1)) == []
    [line] = [str(aim) for aim in aims(found) if aim.name == "fast-added-p50-us-mlp"]
    assert line.endswith(found.lost[model.name, "muster b"])


def test_the_agents_aims_are_ratios_to_peers_of_the_same_run() -> None:
    ours, theirs = Load(100_000.0, 10.0, 20.0, 9.0), Load(5_000.0, 150.0, 300.0, 190.0)
    found = Found(loads={("mlp", MANY): {"muster TCP binary": ours, "mlserver": theirs}})
    assert "AIM rest-binary-to-mlserver-mlp 20 >=15 OK" in [str(aim) for aim in aims(found)]
    assert median_load([ours, theirs, theirs]) == theirs


def test_a_client_takes_answers_in_parts_and_refuses_errors() -> None:
    client, server = socket.socketpair()
    with client, server:
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Len")
        waiting = threading.Thread(target=receive, args=(client,))
        waiting.start()
        server.sendall(b"gth: 4\r\n\r\nab")
        server.sendall(b"cd")
        waiting.join(10)
        assert not waiting.is_alive()
        server.sendall(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(Unanswered):
            receive(client)
        server.shutdown(socket.SHUT_WR)
        with pytest.raises(Unanswered):
            receive(client)
