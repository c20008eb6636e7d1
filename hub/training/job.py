"""What a training is told, and what comes of it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from converters.judging.variant import VariantReport
from fleet.protocol.names import Name, Sha256
from hub.jobs.lines import FilePath

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that determines a model version.

    Attributes:
        dataset_path: The dataset file.
        dataset: Name of the dataset.
        dataset_sha256: Digest of its file.
        model: Name of the model.
        version: Number of the version.
        estimator: What to train, see `hub.training.estimators`.
        hyperparameters: How; what is not named has its default.
        seed: Of every random choice.
        minimum_accuracy: Least share of right answers on held-out samples, of every variant.
        maximum_drop: Greatest loss of accuracy against the estimator with which a variant is packed.
        output_folder: Where the bundle goes, see `converters.bundles.folder`; does not exist, or is empty.
        held_out_share: Share of the dataset that training does not see.
        embedding: The layer whose components are watched for drift, see `converters.embedding`; empty for
            none.
    """

    dataset_path: FilePath
    dataset: Name
    dataset_sha256: Sha256
    model: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    estimator: str
    hyperparameters: dict[str, int | float | str | bool]
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    minimum_accuracy: Share
    maximum_drop: Share
    output_folder: FilePath
    held_out_share: Annotated[float, msgspec.Meta(ge=0.05, le=0.5)] = 0.25
    embedding: str = ""


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job whose bundle is in the output folder.

    Attributes:
        manifest_sha256: The bundle.
        variants: What became of each variant.
        training_samples: Samples that training saw.
        held_out_samples: Samples that all accuracies were measured on.
        duration_s: Wall-clock time of the whole job.
    """

    manifest_sha256: Sha256
    variants: tuple[VariantReport, ...]
    training_samples: int
    held_out_samples: int
    duration_s: float
