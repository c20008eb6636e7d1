"""The work of each phase of an update: what happens between two events of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from msgspec.structs import replace

from agent.delivery import Delivery
from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.hosting.loading import load
from agent.life.choice import Chooser
from agent.life.footprint import measure_footprint
from agent.life.gate import Gate
from agent.life.opening import Opener
from agent.life.shadow import run_shadow
from agent.life.slots import Slots
from agent.life.terms import (
    Cleared,
    Event,
    Failed,
    Fetched,
    Life,
    Phase,
    Release,
    ShadowPassed,
    TestPassed,
    TrialPassed,
    Verified,
)
from agent.life.trial import run_trial
from agent.settings import Settings
from agent.threads import run_to_end
from agent.trust.image_repository import ImageRepository
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import (
    InvalidInput,
    ModelError,
    MusterError,
    NoSpace,
    TrialFailed,
    TrustError,
    VariantUnsupported,
)
from fleet.protocol.manifest import File, decode_manifest
from fleet.protocol.messages import Capabilities
from fleet.protocol.records import ShadowReport
from fleet.protocol.requirement import fits, suitable_runtime


class Workshop:
    """Does the work of the phases.

    Args:
        repository: Vouches for manifests.
        delivery: Gets blobs.
        slots: Installs versions.
        host: The versions that answer.
        chooser: Chooses among variants.
        opener: Brings models into memory.
        gate: Keeps staged versions waiting until they may be swapped in.
        settings: The agent's settings.
        capabilities: Tells what the device can run.
        on_incident: Told of what a person may have to know.
        keep: Keeps a report of a shadow for the hub.
    """

    def __init__(
        self,
        repository: ImageRepository,
        delivery: Delivery,
        slots: Slots,
        host: Host,
        chooser: Chooser,
        *,
        opener: Opener,
        gate: Gate,
        settings: Settings,
        capabilities: Callable[[], Capabilities],
        on_incident: Callable[[MusterError], None],
        keep: Callable[[ShadowReport], None],
    ) -> None:
        self._repository = repository
        self._delivery = delivery
        self._slots = slots
        self._host = host
        self._chooser = chooser
        self._opener = opener
        self.gate = gate
        self._settings = settings
        self._capabilities = capabilities
        self._on_incident = on_incident
        self._keep = keep

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
                return await self._download(model, life)
            case Phase.VERIFYING:
                for prepared in life.prepared:
                    await run_to_end(partial(self._slots.install, model, prepared))
                return Verified(deployment_id)
            case Phase.STAGED:
                await self.gate.wait(model, life.maintenance, life.mode)
                return Cleared(deployment_id)
            case Phase.TESTING:
                chosen = await self._chosen(model, life)
                if chosen != life.active:
                    ready[chosen] = await self._tested(model, chosen)
                return TestPassed(deployment_id, chosen.variant)
            case Phase.SHADOW:
                if release not in ready:
                    ready[release] = await self.load(model, release, must_fit=True)
                await self._shadow(ready[release], life)
                # A shadow takes long: what was agreed before may hold no longer.
                await self.gate.wait(model, life.maintenance, life.mode)
                return ShadowPassed(deployment_id)
            case Phase.TRIAL:
                hosted = self._host.get(model)
                if hosted is None or hosted.release != release:
                    raise TrialFailed("The version on trial could not be loaded.")
                before = None if life.active is None else ready.get(life.active)
                await run_trial(hosted, before, self._settings)
                return TrialPassed(deployment_id)
            case _:
                raise AssertionError(f"no work in phase {life.phase}")

    async def _download(self, model: str, life: Life) -> Event:
        deployment_id = life.deployment_id
        try:
            kept = await self._vouched(model, life)
        except (TrustError, InvalidInput, VariantUnsupported) as error:
            return Failed(deployment_id, error.cause(), refused=True)
        together = kept[:1] if life.policy is VariantPolicy.SMALLEST else kept
        try:
            await self._delivery.fetch(self._files(model, together))
        except NoSpace as error:
            if len(together) == 1:
                raise
            self._on_incident(error)
            kept = kept[:1]
            await self._delivery.fetch(self._files(model, kept))
        return Fetched(deployment_id, tuple(release.variant for release in kept))

    async def _vouched(self, model: str, life: Life) -> tuple[Release, ...]:
        """Return what comes into question of the releases that are offered, the most promising first.

        That are those that fit the device; of those that were measured here before, only the best. Image
        repository and director both vouch for them, and the manifest is held for those to prepare.
        """
        assert life.candidate is not None
        version, digest = life.candidate.version, life.candidate.manifest_sha256
        held = next(filter(None, (self._slots.held_manifest(model, each) for each in life.offered)), None)
        data = await self._repository.manifest(model, version, digest, held)
        manifest, device = decode_manifest(data), self._capabilities()
        requirements = {each: manifest.variant(each.variant).requirement for each in life.offered}
        kept = tuple(
            each
            for each, requirement in requirements.items()
            if fits(requirement, device) and (each == life.active or self._opener.fits(requirement))
        )
        if not kept:
            suitable_runtime(requirements[life.candidate], device)
            self._opener.check(requirements[life.candidate])
        if len(kept) > 1 and life.policy is not VariantPolicy.SMALLEST:
            known = self._chooser.known(digest, [each.variant for each in kept], life.policy)
            kept = tuple(each for each in kept if known in {each.variant, None})
        for each in kept:
            if self._slots.held_manifest(model, each) is None:
                self._slots.stage(model, each, data)
        return kept

    def _files(self, model: str, releases: Iterable[Release]) -> list[File]:
        return [file for release in releases for file in self._slots.files(model, release)]

    async def load(self, model: str, release: Release, *, must_fit: bool = False) -> Hosted:
        """Load an installed version into memory after hashing every byte of it.

        Args:
            model: Its name.
            release: The version.
            must_fit: Whether it is refused if it does not fit into the memory that models may have.

        Raises:
            StorageCorrupt: It is damaged on disk.
            ModelError: No runtime here can run it, or it does not fit.
        """
        slot = await run_to_end(lambda: self._slots.open(model, release))
        open_model = partial(self._opener.open, must_fit=must_fit)
        before = measure_footprint()
        settings = self._settings
        hosted = await load(
            slot, self._capabilities(), settings.inference_timeout_s, open_model, settings.batch_limit
        )
        hosted.footprint_before = before
        return hosted

    async def _shadow(self, candidate: Hosted, life: Life) -> None:
        await run_shadow(
            candidate,
            self._host,
            deployment_id=life.deployment_id,
            duration_s=life.shadow_s,
            settings=self._settings,
            keep=self._keep,
        )

    async def _chosen(self, model: str, life: Life) -> Release:
        """Return the candidate, in the variant that is best where several are prepared."""
        assert life.candidate is not None
        if len(life.prepared) == 1:
            return life.candidate
        return replace(life.candidate, variant=await self._chooser.choose(model, life))

    async def _tested(self, model: str, release: Release) -> Hosted:
        hosted = await self.load(model, release, must_fit=True)
        try:
            await hosted.self_test()
        except BaseException as error:
            hosted.close()
            if isinstance(error, ModelError):
                self._chooser.forget(release.manifest_sha256)
            raise
        return hosted
