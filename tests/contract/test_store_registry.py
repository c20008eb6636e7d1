"""The contract of every store: tokens, datasets and model versions."""

from __future__ import annotations

import msgspec
import pytest

from fleet.protocol.errors import Cause, Conflict, NotAuthenticated, NotFound
from hub.store.protocols import Store
from hub.store.rows import ApiToken, Revocation, Role, VersionRow, VersionStatus
from tests.support.stores import DIGEST, add_device, dataset_row, new_device, say


def test_an_api_token_is_found_by_its_hash_alone(store: Store) -> None:
    store.add_api_token("hash", ApiToken("ana", Role.OPERATOR, 1.0))
    assert store.api_token("hash") == ApiToken("ana", Role.OPERATOR, 1.0)
    assert store.api_token("other") is None


def test_two_api_tokens_cannot_have_one_name(store: Store) -> None:
    store.add_api_token("hash", ApiToken("ana", Role.VIEWER, 1.0))
    with pytest.raises(Conflict):
        store.add_api_token("other", ApiToken("ana", Role.ADMIN, 1.0))
    assert store.api_token("other") is None


def test_an_enrolment_token_works_once(store: Store) -> None:
    store.add_enrolment_token("secret", created_at_s=0.0, expires_at_s=100.0)
    store.enrol(new_device("cam-1"), token_sha256="secret", now_s=50.0)
    with pytest.raises(NotAuthenticated):
        store.enrol(new_device("cam-2"), token_sha256="secret", now_s=51.0)
    assert [device.device_id for device in store.devices()] == ["cam-1"]


@pytest.mark.parametrize("now_s", [100.0, 1e9])
def test_an_expired_enrolment_token_does_not_work(store: Store, now_s: float) -> None:
    store.add_enrolment_token("secret", created_at_s=0.0, expires_at_s=100.0)
    with pytest.raises(NotAuthenticated):
        store.enrol(new_device("cam-1"), token_sha256="secret", now_s=now_s)


def test_a_refused_enrolment_does_not_use_up_the_token(store: Store) -> None:
    add_device(store, "cam-1")
    store.add_enrolment_token("secret", created_at_s=0.0, expires_at_s=100.0)
    with pytest.raises(Conflict):
        store.enrol(new_device("cam-1"), token_sha256="secret", now_s=50.0)
    store.enrol(new_device("cam-2"), token_sha256="secret", now_s=51.0)


def test_an_enrolment_whose_answer_was_lost_can_be_repeated(store: Store) -> None:
    store.add_enrolment_token("secret", created_at_s=0.0, expires_at_s=100.0)
    store.enrol(new_device("cam-1"), token_sha256="secret", now_s=50.0)
    again = msgspec.structs.replace(new_device("cam-1"), password_hash="another")
    store.enrol(again, token_sha256="secret", now_s=51.0)
    assert store.password_hashes() == {"cam-1": "another"}
    with pytest.raises(NotAuthenticated):
        store.enrol(again, token_sha256="secret", now_s=100.0)
    say(store, "cam-1", 60.0)
    with pytest.raises(NotAuthenticated):
        store.enrol(again, token_sha256="secret", now_s=61.0)


def test_a_dataset_name_stands_for_its_bytes_for_ever(store: Store) -> None:
    store.add_dataset(dataset_row())
    store.add_dataset(dataset_row())
    with pytest.raises(Conflict):
        store.add_dataset(dataset_row(sha256="ff" * 32))
    assert store.dataset("digits") == dataset_row()
    with pytest.raises(NotFound):
        store.dataset("letters")


def test_datasets_come_in_pages(store: Store) -> None:
    for name in ("c", "a", "b"):
        store.add_dataset(dataset_row(name))
    assert [row.name for row in store.datasets(limit=2)] == ["a", "b"]
    assert [row.name for row in store.datasets(after="b", limit=2)] == ["c"]


def _begin(store: Store, model: str = "digits") -> VersionRow:
    return store.begin_version(
        model, dataset="digits", estimator="mlp", hyperparameters={"hidden": 8}, seed=7, now_s=2.0
    )


def test_versions_are_numbered_per_model(store: Store) -> None:
    store.add_dataset(dataset_row())
    assert [_begin(store).version, _begin(store).version, _begin(store, "letters").version] == [1, 2, 1]
    assert [(row.model, row.version) for row in store.versions()] == [
        ("digits", 1),
        ("digits", 2),
        ("letters", 1),
    ]
    assert [row.version for row in store.versions("digits", after=("digits", 1))] == [2]


def test_a_version_needs_a_registered_dataset(store: Store) -> None:
    with pytest.raises(NotFound):
        _begin(store)
    assert store.versions() == []


def test_a_version_goes_from_training_to_release(store: Store) -> None:
    store.add_dataset(dataset_row())
    _begin(store)
    with pytest.raises(Conflict):
        store.release_version("digits", 1, 3.0)
    store.finish_version("digits", 1, manifest_sha256=DIGEST, report={"variants": [1]})
    store.release_version("digits", 1, 4.0)
    store.release_version("digits", 1, 5.0)
    row = store.version("digits", 1)
    assert (row.status, row.manifest_sha256, row.released_at_s) == (VersionStatus.RELEASED, DIGEST, 4.0)
    assert row.report == {"variants": [1]}
    assert row.hyperparameters == {"hidden": 8}


def test_a_version_is_revoked_for_good_and_what_was_said_first_holds(store: Store) -> None:
    store.add_dataset(dataset_row())
    _begin(store)
    said = Revocation(5.0, "ana", "It leaks.")
    with pytest.raises(Conflict):
        store.revoke_version("digits", 1, said)
    store.finish_version("digits", 1, manifest_sha256=DIGEST, report={})
    store.release_version("digits", 1, 4.0)
    store.revoke_version("digits", 1, said)
    store.revoke_version("digits", 1, Revocation(6.0, "bo", "again"))
    row = store.version("digits", 1)
    assert (row.status, row.revoked, row.released_at_s) == (VersionStatus.REVOKED, said, 4.0)
    with pytest.raises(Conflict):
        store.release_version("digits", 1, 7.0)
    with pytest.raises(NotFound):
        store.revoke_version("digits", 2, said)


def test_a_failed_version_keeps_its_cause_and_stays_failed(store: Store) -> None:
    store.add_dataset(dataset_row())
    _begin(store)
    store.fail_version("digits", 1, Cause("accuracy_too_low", "It reaches 0.4."))
    assert store.version("digits", 1).cause == Cause("accuracy_too_low", "It reaches 0.4.")
    with pytest.raises(Conflict):
        store.finish_version("digits", 1, manifest_sha256=DIGEST, report={})


def test_trainings_of_an_earlier_run_are_abandoned(store: Store) -> None:
    store.add_dataset(dataset_row())
    _begin(store)
    _begin(store)
    store.finish_version("digits", 1, manifest_sha256=DIGEST, report={})
    assert store.abandon_trainings(Cause("training_interrupted", "The hub stopped.")) == 1
    assert [row.status for row in store.versions()] == [VersionStatus.REGISTERED, VersionStatus.FAILED]


def test_an_unknown_version_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.version("digits", 1)
    with pytest.raises(NotFound):
        store.fail_version("digits", 1, Cause("x", "y"))


def _complete(version: int, model: str = "digits") -> VersionRow:
    return VersionRow(
        model=model,
        version=version,
        status=VersionStatus.REGISTERED,
        dataset="of somebody else",
        estimator="onnx",
        hyperparameters={"method": "minmax"},
        seed=2**32 - 1,
        created_at_s=3.0,
        manifest_sha256=DIGEST,
        report={"variants": []},
    )


def test_a_complete_version_is_added_as_it_is_and_needs_no_dataset(store: Store) -> None:
    assert store.add_version(_complete(1))
    assert store.version("digits", 1) == _complete(1)
    store.release_version("digits", 1, 4.0)
    assert store.version("digits", 1).status is VersionStatus.RELEASED


def test_a_complete_version_takes_the_next_number_and_no_other(store: Store) -> None:
    store.add_dataset(dataset_row())
    _begin(store)
    assert [store.add_version(_complete(number)) for number in (0, 1, 3, 2, 2)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert _begin(store).version == 3
    assert [row.status.value for row in store.versions()] == ["TRAINING", "REGISTERED", "TRAINING"]
