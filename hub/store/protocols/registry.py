"""Datasets and model versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fleet.protocol.errors import Cause
from hub.store.rows import DatasetRow, Revocation, VersionRow


class RegistryStore(Protocol):
    """Datasets and model versions."""

    def add_dataset(self, dataset: DatasetRow) -> None:
        """Add a dataset; raises `Conflict` if its name stands for other bytes already."""
        ...

    def dataset(self, name: str) -> DatasetRow:
        """Return a dataset; raises `NotFound`."""
        ...

    def datasets(self, *, after: str = "", limit: int = 100) -> list[DatasetRow]:
        """Return datasets by name."""
        ...

    def begin_version(
        self,
        model: str,
        *,
        dataset: str,
        estimator: str,
        hyperparameters: Mapping[str, Any],
        seed: int,
        now_s: float,
    ) -> VersionRow:
        """Reserve the model's next version number for a training, and return the version.

        Args:
            model: Name of the model.
            dataset: Name of the dataset.
            estimator: What is trained, see `hub.training.estimators`.
            hyperparameters: How.
            seed: Of every random choice.
            now_s: Hub time, Unix seconds.

        Raises:
            NotFound: There is no such dataset.
        """
        ...

    def finish_version(
        self, model: str, version: int, *, manifest_sha256: str, report: Mapping[str, Any]
    ) -> None:
        """Training → registered.

        Args:
            model: Name of the model.
            version: The version.
            manifest_sha256: Digest of the bundle that came of it.
            report: What the training tells, see `hub.training.job.TrainingResult`.
        """
        ...

    def add_version(self, version: VersionRow) -> bool:
        """Add a version that is complete; its dataset need not be registered here.

        Returns:
            False if its number is not the model's next one; nothing was changed.
        """
        ...

    def fail_version(self, model: str, version: int, cause: Cause) -> None:
        """Training → failed."""
        ...

    def release_version(self, model: str, version: int, now_s: float) -> None:
        """Registered → released; raises `Conflict` from any other status but released."""
        ...

    def revoke_version(self, model: str, version: int, revocation: Revocation) -> None:
        """Registered or released → revoked, for good; what was said first holds.

        Raises:
            NotFound: There is no such version.
            Conflict: It never became usable.
        """
        ...

    def abandon_trainings(self, cause: Cause) -> int:
        """Mark every version in training as failed: the process that trained them is gone."""
        ...

    def version(self, model: str, version: int) -> VersionRow:
        """Return a version; raises `NotFound`."""
        ...

    def versions(
        self, model: str | None = None, *, after: tuple[str, int] = ("", 0), limit: int = 100
    ) -> list[VersionRow]:
        """Return versions by model and number."""
        ...
