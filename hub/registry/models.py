"""Model versions: trained here or built elsewhere, registered as bundles, released by signature.

What trains, and what opens an uploaded bundle, runs in processes of their own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from converters.bundles.bundle import Bundle, renamed
from converters.bundles.folder import read_bundle
from fleet.drift.profile import ReferenceProfile
from fleet.protocol.errors import (
    MAX_DETAIL_LENGTH,
    Cause,
    Conflict,
    ModelError,
    MusterError,
    NotFound,
    StorageError,
    VersionRevoked,
)
from fleet.protocol.manifest import Manifest, decode_manifest, target_path
from fleet.protocol.names import checked_name
from fleet.sentences import by_whom
from hub.jobs.lines import Progress
from hub.jobs.runner import run_job
from hub.registry.check import CheckJob, CheckResult
from hub.store.blobs import BlobFolder
from hub.store.protocols import RegistryStore
from hub.store.rows import Revocation, VersionRow, VersionStatus
from hub.tasks import TaskSet
from hub.training.estimators import check_hyperparameters
from hub.training.job import TrainingJob
from hub.training.runner import run_training
from hub.trust.image_repository import ImageRepository

MAXIMUM_DROP = 0.02
"""Greatest loss of accuracy against the trained estimator with which a variant is packed."""

TRAINING_LIMIT_S = 3600.0
CHECKER = "hub.registry.check_worker"
CHECK_LIMIT_S = 300.0
FAIL_RETRY_S = 10.0
PAGE = 100

log = logging.getLogger(__name__)


class Models:
    """The versions of all models.

    Args:
        store: Keeps what is known of them.
        datasets: Keeps datasets.
        blobs: Keeps manifests and the files of bundles.
        repository: Signs what is released.
    """

    def __init__(
        self, store: RegistryStore, datasets: BlobFolder, blobs: BlobFolder, repository: ImageRepository
    ) -> None:
        self._store = store
        self._datasets = datasets
        self._blobs = blobs
        self._repository = repository
        self._trainings = TaskSet()
        self._releasing = threading.Lock()  # what is revoked is not released at the same time
        self._one_training = asyncio.Semaphore(1)
        self._one_check = asyncio.Semaphore(1)
        self._progress: dict[tuple[str, int], Progress] = {}
        self._manifest = functools.lru_cache(maxsize=256)(self._read_manifest)

    def abandon_trainings(self) -> int:
        """Mark trainings that an earlier run of the hub did not finish as failed."""
        return self._store.abandon_trainings(
            Cause("training_interrupted", "The hub stopped during the training. Train it again.")
        )

    async def close(self) -> None:
        """Cancel the trainings that run."""
        await self._trainings.cancel()

    async def train(
        self,
        model: str,
        *,
        dataset: str,
        estimator: str,
        hyperparameters: Mapping[str, Any],
        seed: int,
        minimum_accuracy: float,
        embedding: str = "",
    ) -> VersionRow:
        """Start training the model's next version and return it, in status TRAINING.

        Args:
            model: Its name.
            dataset: Name of the dataset.
            estimator: What to train, see `hub.training.estimators`.
            hyperparameters: How.
            seed: Of every random choice.
            minimum_accuracy: Least share of right answers on held-out samples, of every variant.
            embedding: The layer whose components are watched for drift, see `converters.embedding`; empty
                for none.

        Raises:
            InvalidName: The model's name cannot be used.
            InvalidModel: The estimator or a hyperparameter is unknown or out of range.
            NotFound: There is no such dataset.
        """
        checked_name(model, "model name")
        check_hyperparameters(estimator, hyperparameters)
        data = await asyncio.to_thread(self._store.dataset, dataset)
        version = await asyncio.to_thread(
            functools.partial(
                self._store.begin_version,
                model,
                dataset=dataset,
                estimator=estimator,
                hyperparameters=hyperparameters,
                seed=seed,
                now_s=time.time(),
            )
        )
        job = TrainingJob(
            dataset_path=str(self._datasets.path(data.sha256)),
            dataset=data.name,
            dataset_sha256=data.sha256,
            model=model,
            version=version.version,
            estimator=estimator,
            hyperparameters=dict(hyperparameters),
            seed=seed,
            minimum_accuracy=minimum_accuracy,
            maximum_drop=MAXIMUM_DROP,
            output_folder="",
            embedding=embedding,
        )
        self._trainings.start(self._train(job))
        return version

    async def register(self, model: str, archive: Path) -> tuple[VersionRow, bool]:
        """Check a bundle that was built elsewhere and make it the model's next version.

        Args:
            model: Name of the model; that of the manifest does not matter.
            archive: The bundle, see `converters.bundles.archive`.

        Returns:
            The version, and whether it is new: a bundle that the model has already, whatever name and number
            it was built under, is not registered a second time.

        Raises:
            InvalidName: The model's name cannot be used.
            InvalidInput: The archive is not one, or its manifest makes a false claim.
            DigestMismatch: A blob is not what the manifest promises.
            ModelError: A variant does not do what the manifest says, or crashed, or took too long.
            StorageError: The version could not be stored.
        """
        checked_name(model, "model name")
        with tempfile.TemporaryDirectory(prefix="muster-check-") as folder:
            output = Path(folder) / "bundle"
            job = CheckJob(archive_path=str(archive), output_folder=str(output))
            try:
                async with self._one_check, asyncio.timeout(CHECK_LIMIT_S):
                    result = await run_job(CHECKER, job, CheckResult)
            except TimeoutError as error:
                raise ModelError(f"Checking the bundle took longer than {CHECK_LIMIT_S:g} s.") from error
            bundle = await asyncio.to_thread(read_bundle, output, result.manifest_sha256)
            return await asyncio.to_thread(self._add, model, bundle, result)

    def progress(self, model: str, version: int) -> Progress | None:
        """Return how far a training is; None when it does not run."""
        return self._progress.get((model, version))

    def release(self, model: str, version: int) -> VersionRow:
        """Sign a registered version into the image repository.

        Raises:
            NotFound: There is no such version.
            VersionRevoked: It was revoked.
            Conflict: It is neither registered nor released.
        """
        with self._releasing:
            row = self._store.version(model, version)
            _check_not_revoked(row)
            if row.manifest_sha256 is None:
                raise Conflict(
                    f"{model} version {version} is {row.status.value}: only a registered one can be released."
                )
            now_s, manifest = time.time(), self._blobs.read(row.manifest_sha256)
            self._repository.release(target_path(model, version), manifest, now_s)
            self._store.release_version(model, version, now_s)
            return self._store.version(model, version)

    def revoke(self, model: str, version: int, *, by: str, reason: str) -> VersionRow:
        """Withdraw a version for good: it is ordered to no device any more, and no device accepts it anew.

        To revoke it again completes what was interrupted; who did it first, and why, stays.

        Raises:
            NotFound: There is no such version; or it is revoked, and the key that takes it out of the image
                repository is not here.
            Conflict: It is neither registered nor released.
            StorageError: It is revoked, and could not be taken out of the image repository.
        """
        with self._releasing:
            now_s = time.time()
            self._store.revoke_version(model, version, Revocation(now_s, by, reason))
            self._repository.withdraw(target_path(model, version), now_s)
            return self._store.version(model, version)

    def manifest(self, model: str, version: int) -> tuple[str, Manifest]:
        """Return the digest and contents of a version's manifest.

        Raises:
            NotFound: There is no such version, or it has no bundle.
        """
        return self._manifest(model, version)

    def released(self, model: str, version: int) -> tuple[str, Manifest]:
        """Return the manifest of a version that may be rolled out.

        Raises:
            NotFound: There is no such version.
            VersionRevoked: It was revoked.
            Conflict: It was not released.
        """
        row = self._store.version(model, version)
        _check_not_revoked(row)
        if row.status is not VersionStatus.RELEASED:
            raise Conflict(
                f"{model} version {version} is {row.status.value}, not RELEASED.",
                remedy=f"Release it with `muster model release {model} {version}`.",
            )
        return self.manifest(model, version)

    def reference(self, model: str, version: int) -> tuple[str, ReferenceProfile]:
        """Return a version's bundle digest and reference profile; raises like `manifest`."""
        digest, manifest = self.manifest(model, version)
        return digest, manifest.reference

    def _read_manifest(self, model: str, version: int) -> tuple[str, Manifest]:
        row = self._store.version(model, version)
        if row.manifest_sha256 is None:
            raise NotFound(f"{model} version {version} is {row.status.value} and has no bundle.")
        return row.manifest_sha256, decode_manifest(self._blobs.read(row.manifest_sha256))

    async def _train(self, job: TrainingJob) -> None:
        key = (job.model, job.version)
        try:
            async with self._one_training, asyncio.timeout(TRAINING_LIMIT_S):
                with tempfile.TemporaryDirectory(prefix="muster-training-") as folder:
                    await self._train_into(Path(folder), job)
        except TimeoutError:
            await self._fail(
                key, Cause(ModelError.code, f"The training took longer than {TRAINING_LIMIT_S:g} s.")
            )
        except MusterError as error:
            await self._fail(key, error.cause())
        except Exception as error:  # whatever it is, the version must not look as if it were in training
            log.exception("The training of %s version %d failed.", *key)
            await self._fail(
                key, Cause(MusterError.code, f"The training failed: {error}"[:MAX_DETAIL_LENGTH])
            )
        finally:
            self._progress.pop(key, None)

    async def _fail(self, key: tuple[str, int], cause: Cause) -> None:
        """Say that a training failed, again and again if need be: it must not look as if it went on."""
        while True:
            try:
                await asyncio.to_thread(self._store.fail_version, *key, cause)
            except StorageError as error:
                log.error("%s", error)
                await asyncio.sleep(FAIL_RETRY_S)
            else:
                return

    async def _train_into(self, folder: Path, job: TrainingJob) -> None:
        job = msgspec.structs.replace(job, output_folder=str(folder))
        key = (job.model, job.version)
        result = await run_training(job, lambda progress: self._progress.update({key: progress}))
        bundle = await asyncio.to_thread(read_bundle, folder, result.manifest_sha256)
        digest = await asyncio.to_thread(self._keep, bundle)
        report = msgspec.to_builtins(result)
        await asyncio.to_thread(
            functools.partial(self._store.finish_version, *key, manifest_sha256=digest, report=report)
        )

    def _keep(self, bundle: Bundle) -> str:
        """Keep a bundle's files and return its digest; only after this may a version name them."""
        for data in bundle.blobs.values():
            self._blobs.put(data)
        return self._blobs.put(bundle.manifest_bytes)

    def _add(self, model: str, bundle: Bundle, result: CheckResult) -> tuple[VersionRow, bool]:
        provenance = bundle.manifest.provenance
        while True:  # until no training has taken the number meanwhile
            rows = self._versions(model)
            registered = [row for row in rows if row.manifest_sha256 is not None]
            for row in registered:
                if renamed(bundle, model, row.version).sha256 == row.manifest_sha256:
                    return row, False
            number = rows[-1].version + 1 if rows else 1
            row = VersionRow(
                model=model,
                version=number,
                status=VersionStatus.REGISTERED,
                dataset=provenance.dataset,
                estimator=provenance.estimator,
                hyperparameters=dict(provenance.hyperparameters),
                seed=provenance.seed,
                created_at_s=time.time(),
                manifest_sha256=self._keep(renamed(bundle, model, number)),
                report=msgspec.to_builtins(result),
            )
            if self._store.add_version(row):
                return row, True

    def _versions(self, model: str) -> list[VersionRow]:
        rows: list[VersionRow] = []
        last = 0
        while page := self._store.versions(model, after=(model, last), limit=PAGE):
            rows += page
            last = rows[-1].version
        return rows


def _check_not_revoked(row: VersionRow) -> None:
    if row.revoked is not None:
        raise VersionRevoked(
            f"{row.model} version {row.version} was revoked by {by_whom(row.revoked.by, row.revoked.reason)}",
            remedy="Bring another version; `muster model list` shows those there are.",
        )
