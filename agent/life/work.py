"""The work of each phase of an update: what happens between two events of the machine."""

from __future__ import annotations

from collections.abc import Callable

from agent.delivery import Delivery
from agent.hosting import Host, Hosted, load
from agent.life.slots import Slots
from agent.life.terms import (
    Cleared,
    Event,
    Failed,
    Fetched,
    Life,
    Phase,
    Release,
    TestPassed,
    TrialPassed,
    Verified,
)
from agent.life.trial import run_trial
from agent.settings import Settings
from agent.threads import run_to_end
from agent.trust.image_repository import ImageRepository
from fleet.protocol.errors import InvalidInput, TrialFailed, TrustError, VariantUnsupported
from fleet.protocol.manifest import File, decode_manifest
from fleet.protocol.messages import Capabilities
from fleet.protocol.requirement import suitable_runtime


class Workshop:
    """Does the work of the phases.

    Args:
        repository: Vouches for manifests.
        delivery: Gets blobs.
        slots: Installs versions.
        host: The versions that answer.
        settings: The agent's settings.
        capabilities: Tells what the device can run.
    """

    def __init__(
        self,
        repository: ImageRepository,
        delivery: Delivery,
        slots: Slots,
        host: Host,
        *,
        settings: Settings,
        capabilities: Callable[[], Capabilities],
    ) -> None:
        self._repository = repository
        self._delivery = delivery
        self._slots = slots
        self._host = host
        self._settings = settings
        self._capabilities = capabilities

    async def work(self, model: str, life: Life, ready: dict[Release, Hosted]) -> Event:
        """Do the work of the phase that a model is in.

        Args:
            model: Its name.
            life: Its state; there is a candidate.
            ready: Versions in memory; the self-test leaves the candidate here.

        Returns:
            What happened.

        Raises:
            MusterError: The work failed.
        """
        release, deployment_id = life.candidate, life.deployment_id
        assert release is not None
        match life.phase:
            case Phase.DOWNLOADING:
                return await self._download(model, release, deployment_id)
            case Phase.VERIFYING:
                await run_to_end(lambda: self._slots.install(model, release))
                return Verified(deployment_id)
            case Phase.STAGED:
                return Cleared(deployment_id)
            case Phase.TESTING:
                ready[release] = await self._tested(model, release)
                return TestPassed(deployment_id)
            case Phase.TRIAL:
                hosted = self._host.get(model)
                if hosted is None or hosted.release != release:
                    raise TrialFailed("The version on trial could not be loaded.")
                await run_trial(hosted, self._settings)
                return TrialPassed(deployment_id)
            case _:
                raise AssertionError(f"no work in phase {life.phase}")

    async def _download(self, model: str, release: Release, deployment_id: str) -> Event:
        try:
            files = await self._vouched_files(model, release)
        except (TrustError, InvalidInput, VariantUnsupported) as error:
            return Failed(deployment_id, error.cause(), refused=True)
        await self._delivery.fetch(files)
        return Fetched(deployment_id)

    async def _vouched_files(self, model: str, release: Release) -> tuple[File, ...]:
        """Return the files of a release for which image repository and director both vouch."""
        held = self._slots.held_manifest(model, release)
        manifest = await self._repository.manifest(model, release.version, release.manifest_sha256, held)
        requirement = decode_manifest(manifest).variant(release.variant).requirement
        suitable_runtime(requirement, self._capabilities())
        if held is None:
            self._slots.stage(model, release, manifest)
        return self._slots.files(model, release)

    async def load(self, model: str, release: Release) -> Hosted:
        """Load an installed version into memory after hashing every byte of it.

        Raises:
            StorageCorrupt: It is damaged on disk.
            ModelError: No runtime here can run it.
        """
        slot = await run_to_end(lambda: self._slots.open(model, release))
        return await load(slot, self._capabilities(), self._settings.inference_timeout_s)

    async def _tested(self, model: str, release: Release) -> Hosted:
        hosted = await self.load(model, release)
        try:
            await hosted.self_test()
        except BaseException:
            hosted.close()
            raise
        return hosted
