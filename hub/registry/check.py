"""The check of an uploaded bundle: from an archive that nobody vouches for to a bundle in a folder.

Everything that reads or runs what was uploaded happens here, in a process of its own
(`hub.registry.check_worker`): the hub itself sees only the folder, and hashes every byte of it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from converters.bundles.archive import read_archive
from converters.bundles.bundle import Bundle
from converters.bundles.folder import write_bundle
from converters.bundles.verify import Verified, verify
from converters.judging.variant import VariantReport
from fleet.protocol.names import Sha256
from hub.jobs.lines import FilePath, Progress


class CheckJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to check.

    Attributes:
        archive_path: The archive, see `converters.bundles.archive`.
        output_folder: Where the bundle goes; does not exist yet, or is empty.
    """

    archive_path: FilePath
    output_folder: FilePath


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a check whose bundle is in the output folder.

    Attributes:
        manifest_sha256: The bundle, as it was uploaded.
        variants: What its manifest says of each variant.
        verified: What the hub found of each variant.
        duration_s: Wall-clock time of the check.
    """

    manifest_sha256: Sha256
    variants: tuple[VariantReport, ...]
    verified: tuple[Verified, ...]
    duration_s: float


def check(job: CheckJob, on_progress: Callable[[Progress], None]) -> CheckResult:
    """Carry out a job.

    Args:
        job: What to check.
        on_progress: Called with the name of each variant when its test begins.

    Raises:
        InvalidInput: The archive is not one, or its manifest makes a false claim.
        DigestMismatch: A blob is not what the manifest promises.
        SelfTestFailed: A variant does not give its golden outputs here.
        StorageError: The bundle cannot be written.
    """
    started_s = time.monotonic()
    bundle = read_archive(Path(job.archive_path))
    verified = verify(bundle, lambda step, done, of: on_progress(Progress(step, done, of)))
    write_bundle(Path(job.output_folder), bundle)
    return CheckResult(
        manifest_sha256=bundle.sha256,
        variants=_reports(bundle),
        verified=verified,
        duration_s=time.monotonic() - started_s,
    )


def _reports(bundle: Bundle) -> tuple[VariantReport, ...]:
    return tuple(
        VariantReport(
            name=variant.name,
            precision=variant.precision,
            packed=True,
            size_bytes=variant.model_file.size_bytes,
            evaluation=variant.evaluation,
            golden_tolerance=variant.golden_tolerance,
            requirement=variant.requirement,
        )
        for variant in bundle.manifest.variants
    )
