"""How commands show what devices measured of variants."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from hub.cli.output import console, print_table


def print_device_measurements(measurements: list[dict[str, Any]]) -> None:
    """Print what one device measured, a row for each variant that it tried."""
    rows = [
        {
            **candidate,
            "model": measurement["model"],
            "version": measurement["version"],
            "chosen": measurement["policy"] if candidate["variant"] == measurement["chosen"] else None,
            "why": candidate["cause"]["detail"] if candidate["cause"] else None,
        }
        for measurement in measurements
        for candidate in measurement["candidates"]
    ]
    if rows:
        columns = {
            "model": "model",
            "version": "version",
            "variant": "variant",
            "chosen": "chosen as",
            "median_us": "median µs",
            "cpu_us": "CPU µs",
            "size_bytes": "bytes",
            "why": "left out because",
        }
        print_table(rows, columns, as_json=False, title="measured")


def print_class_measurements(classes: list[dict[str, Any]]) -> None:
    """Print what devices measured of one version, a table for each class of devices."""
    for each in classes:
        runtimes = ", ".join(f"{name} {version}" for name, version in sorted(each["runtimes"].items()))
        console.print(escape(f"measured on {each['devices']} of {each['hardware']} with {runtimes}"))
        agreed: dict[str, list[str]] = {}
        for policy, variant in each["agreed"].items():
            agreed.setdefault(variant, []).append(policy)
        rows = [{**variant, "agreed": agreed.get(variant["variant"])} for variant in each["variants"]]
        columns = {
            "variant": "variant",
            "agreed": "agreed as",
            "devices": "devices",
            "passed": "passed",
            "median_us": "median µs",
            "cpu_us": "CPU µs",
            "size_bytes": "bytes",
        }
        print_table(rows, columns, as_json=False)
