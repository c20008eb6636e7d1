"""Targets as engineers write them: what they mean, and what a mistake is answered with."""

from __future__ import annotations

import time

import pytest

from fleet.protocol.errors import InvalidTarget
from fleet.targets.evaluation import DeviceProfile, compile_target
from fleet.targets.lexer import MAX_LENGTH
from fleet.targets.parser import MAX_DEPTH, MAX_TESTS, parse_target
from fleet.targets.printing import print_target
from fleet.targets.tree import Attribute, VersionOf, operands

DEVICE = DeviceProfile(
    "cam-7",
    attributes={"site": "lyon", "hw": "pi4", "floor": "3", "firmware": "1.20.1rc1", "my key": "v"},
    hardware="Raspberry Pi 4 Model B",
    architecture="aarch64",
    agent_version="0.1.0",
    memory_bytes=4 * 2**30,
    runtimes={"onnxruntime": "1.31.1"},
    online=True,
    health="UNHEALTHY",
    tags=frozenset({"pilot"}),
    versions={"digits": 3},
    drifting=frozenset({"input.mean"}),
)


@pytest.mark.parametrize(
    "target",
    [
        'site in ["lyon", "oslo"] and hw == "pi4" and not tag("lab")',
        "SITE == 'x' OR NOT (site != 'lyon')",
        'tag("pilot") and runs("digits") and version("digits") >= 3',
        'floor == 3 and floor > 2.5 and floor <= 3e0 and floor == "3"',
        'firmware >= "1.20" and firmware < "1.20.2" and firmware like "1.2?.*"',
        'runtime("onnxruntime") >= "1.9" and agent_version == "0.1"',
        'hardware like "Raspberry*" and hardware not like "*Model A*"',
        "online and memory_bytes >= 2e9 and not online == false",
        'health in ["unhealthy", "OFFLINE"]',
        'attr("my key") == "v" and has(attr("my key")) and not has(nothing)',
        'building != "b" and building not in ["b"] and building not like "*"',
        'not (version("other") >= 1) and not (version("other") < 1)',
        'tag("lab") and tag("x") or tag("pilot")',
        'drifts("input.mean") and not drifts("input.std") and runs("digits")',
    ],
)
def test_what_holds(target: str) -> None:
    assert compile_target(parse_target(target))(DEVICE)
    assert not compile_target(parse_target(f"not ({target})"))(DEVICE)


def test_a_device_without_the_attribute_hw_is_asked_for_its_hardware() -> None:
    meant = compile_target(parse_target('hw like "Rasp*"'))
    assert meant(DeviceProfile("a", hardware="Raspberry Pi 5"))
    assert not meant(DEVICE)


def test_one_text_stands_for_all_ways_to_write_a_target() -> None:
    written = "((site IN ['lyon',\"oslo\"]))  AND\n(not(tag('lab')) and attr('site') == \"a\\u0009\\\\\\'\")"
    printed = print_target(parse_target(written))
    assert printed == r'site in ["lyon", "oslo"] and not tag("lab") and site == "a\t\\' + "'\""


def test_a_target_tells_what_it_compares() -> None:
    found = operands(parse_target('site == "x" and not (version("m") > 1 or has(y) or tag("t"))'))
    assert found == {Attribute("site"), VersionOf("m")}


@pytest.mark.parametrize(
    ("target", "line", "column", "remedy"),
    [
        ("", 1, 1, "Write a test"),
        ("site", 1, 5, "Compare by"),
        ("site = 'x'", 1, 6, "Write `==`"),
        ("site == x", 1, 9, 'Write "x"'),
        ("site == 'x' &&\n tag('y')", 1, 13, "Write `and`"),
        ("site == 'x'\nor tga('y')", 2, 4, "Did you mean tag"),
        ("site == 'x", 1, 9, "Put ' at its end"),
        ("site == 'x' tag('y')", 1, 13, "Join tests"),
        ("firmware >= 1.2.3", 1, 13, "Put quotes"),
        ("firmware >= 'new'", 1, 13, '"1.20"'),
        ("'lyon' == site", 1, 1, "begins with the attribute"),
        ("memory_bytes > '4'", 1, 16, "a number"),
        ("version('digits') == '3'", 1, 22, "a number"),
        ("health == 'ill'", 1, 11, "HEALTHY"),
        ("health > 'healthy'", 1, 8, ""),
        ("online == 1", 1, 11, "true or false"),
        ("site == true", 1, 9, '"true"'),
        ("memory_bytes like '4*'", 1, 1, "a number"),
        ("site in []", 1, 10, ""),
        ("site in ['a',]", 1, 14, ""),
        ("tag()", 1, 5, ""),
        ("drifts(input.mean)", 1, 8, ""),
        ("drifting('input.mean')", 1, 1, "Did you mean drifts"),
        ("tag('')", 1, 5, ""),
        ("(site == 'x'", 1, 13, ""),
        ("not", 1, 4, ""),
        ("a == 1e999", 1, 6, ""),
        (r"a == '\x'", 1, 7, "backslash"),
        (r"a == '\ud800'", 1, 6, ""),
    ],
)
def test_a_mistake_is_answered_with_its_place(target: str, line: int, column: int, remedy: str) -> None:
    with pytest.raises(InvalidTarget) as caught:
        parse_target(target)
    assert caught.value.message.startswith(f"Line {line}, column {column} of the target: ")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "bomb",
    [
        "(" * 5000,
        "not " * 2000,
        "(" * MAX_DEPTH + "online" + ")" * MAX_DEPTH,
        "x" * (MAX_LENGTH + 1),
        '"' * 8000,
    ],
)
def test_a_target_that_would_take_too_much_is_refused(bomb: str) -> None:
    with pytest.raises(InvalidTarget):
        parse_target(bomb)


def test_the_number_of_tests_is_bounded_and_a_list_is_one() -> None:
    listed = ", ".join(f'"cam-{number}"' for number in range(500))
    most = " or ".join([f"id in [{listed}]"] + ["online"] * (MAX_TESTS - 1))
    assert compile_target(parse_target(most))(DEVICE)
    with pytest.raises(InvalidTarget, match="tests"):
        parse_target(f"{most} or online")


def test_a_target_as_large_as_allowed_is_answered() -> None:
    wide = " or ".join(["online"] * MAX_TESTS)
    assert compile_target(parse_target(wide))(DEVICE)
    deep = "not " * (MAX_DEPTH - 1) + "online"
    assert compile_target(parse_target(deep))(DEVICE) is (MAX_DEPTH % 2 == 1)


def test_no_pattern_takes_long() -> None:
    meant = compile_target(parse_target('site like "{}b"'.format("*a" * 1000)))
    begun_s = time.process_time()
    assert not meant(DeviceProfile("x", attributes={"site": "a" * 20_000}))
    assert time.process_time() - begun_s < 2.0  # with going back it would take longer than the universe has


def test_a_hundred_thousand_devices_are_judged_quickly() -> None:
    fleet = [
        DeviceProfile(
            f"cam-{i}", {"site": ("lyon", "oslo", "rome")[i % 3], "hw": "pi4"}, tags=frozenset({"lab"})
        )
        for i in range(100_000)
    ]
    meant = compile_target(parse_target('site in ["lyon", "oslo"] and hw == "pi4" and not tag("x")'))
    begun_s = time.process_time()
    found = sum(map(meant, fleet))
    assert time.process_time() - begun_s < 2.0
    assert found == 66_667
