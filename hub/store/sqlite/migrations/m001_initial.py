"""Tokens, registry, devices, records, rollouts, drift."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m001_initial(db: sqlite_utils.Database) -> None:
    """Create what the first hub had."""
    _create_registry(db)
    _create_devices(db)
    _create_records(db)
    _create_rollouts(db)


def _create_registry(db: sqlite_utils.Database) -> None:
    table(db, "api_tokens").create(
        {"name": str, "role": str, "secret_sha256": str, "created_at_s": float},
        pk="name",
        not_null={"role", "secret_sha256", "created_at_s"},
    )
    table(db, "api_tokens").create_index(["secret_sha256"], unique=True)
    table(db, "enrolment_tokens").create(
        {
            "secret_sha256": str,
            "created_at_s": float,
            "expires_at_s": float,
            "used_by": str,
            "used_at_s": float,
        },
        pk="secret_sha256",
        not_null={"created_at_s", "expires_at_s"},
    )
    table(db, "datasets").create(
        {
            "name": str,
            "sha256": str,
            "size_bytes": int,
            "samples": int,
            "feature_shape": str,
            "classes": str,
            "created_at_s": float,
        },
        pk="name",
        not_null={"sha256", "size_bytes", "samples", "feature_shape", "classes", "created_at_s"},
    )
    table(db, "versions").create(
        {
            "model": str,
            "version": int,
            "status": str,
            "dataset": str,
            "estimator": str,
            "hyperparameters": str,
            "seed": int,
            "created_at_s": float,
            "manifest_sha256": str,
            "report": str,
            "cause": str,
            "released_at_s": float,
        },
        pk=("model", "version"),
        not_null={"status", "dataset", "estimator", "hyperparameters", "seed", "created_at_s"},
        foreign_keys=[("dataset", "datasets", "name")],
    )


def _create_devices(db: sqlite_utils.Database) -> None:
    table(db, "devices").create(
        {
            "device_id": str,
            "password_hash": str,
            "attributes": str,
            "capabilities": str,
            "enrolled_at_s": float,
            "online": int,
            "sequence": int,
            "accepted_sequence": int,
            "last_seen_at_s": float,
            "reported": str,
        },
        pk="device_id",
        not_null={
            "password_hash",
            "attributes",
            "capabilities",
            "enrolled_at_s",
            "sequence",
            "accepted_sequence",
        },
        defaults={"online": 0, "sequence": 0, "accepted_sequence": 0},
    )
    table(db, "desired").create(
        {
            "device_id": str,
            "model": str,
            "version": int,
            "manifest_sha256": str,
            "variant": str,
            "deployment_id": str,
        },
        pk=("device_id", "model"),
        not_null={"version", "manifest_sha256", "variant", "deployment_id"},
        foreign_keys=[("device_id", "devices", "device_id")],
    )


def _create_records(db: sqlite_utils.Database) -> None:
    table(db, "records").create(
        {
            "position": int,
            "device_id": str,
            "stream": str,
            "number": int,
            "received_at_s": float,
            "model": str,
            "kind": str,
            "body": bytes,
        },
        pk="position",
        not_null={"device_id", "stream", "number", "received_at_s", "kind", "body"},
    )
    table(db, "records").create_index(["device_id", "stream", "number"], unique=True)
    table(db, "records").create_index(["model", "position"])
    table(db, "records").create_index(["device_id", "kind", "position"])
    table(db, "totals").create(
        {"device_id": str, "model": str, "version": int, "body": bytes},
        pk=("device_id", "model", "version"),
        not_null={"body"},
    )
    table(db, "dead_letters").create(
        {"id": int, "topic": str, "received_at_s": float, "cause": str, "payload": bytes},
        pk="id",
        not_null={"topic", "received_at_s", "cause", "payload"},
    )


def _create_rollouts(db: sqlite_utils.Database) -> None:
    table(db, "rollouts").create(
        {
            "number": int,
            "model": str,
            "status": str,
            "is_open": int,
            "revision": int,
            "position": int,
            "created_at_s": float,
            "state": str,
        },
        pk="number",
        not_null={"model", "status", "is_open", "revision", "position", "created_at_s", "state"},
    )
    # One rollout at a time may change a model: the database itself refuses a second one under way.
    db.execute("CREATE UNIQUE INDEX one_open_rollout ON rollouts (model) WHERE is_open")
    table(db, "drift").create(
        {"device_id": str, "model": str, "version": int, "body": bytes},
        pk=("device_id", "model", "version"),
        not_null={"body"},
    )
    table(db, "positions").create({"reader": str, "position": int}, pk="reader", not_null={"position"})
