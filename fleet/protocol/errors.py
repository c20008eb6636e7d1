"""The one tree of errors.

Every error that a person or a device may see is one of these. Each class has a stable ``code`` (kept
for ever, documented in ``docs/reference/errors.md``), a message that says what happened, and a remedy
that says what to do. Exceptions of other libraries are converted once, where they enter our code, with
``raise … from`` so that the cause is kept.

::

    MusterError
    ├── InvalidInput                 what was given cannot be understood; nothing was changed
    │   ├── InvalidName
    │   ├── InvalidMessage           a message from the network that breaks the protocol
    │   ├── MessageTooLarge
    │   ├── InvalidManifest
    │   ├── InvalidAssignment
    │   ├── InvalidDataset
    │   ├── InvalidModel
    │   ├── InvalidPlan
    │   ├── InvalidTarget            an expression that says which devices are meant
    │   ├── PreconditionRequired     it is not said what state of the thing is meant
    │   └── InvalidConfiguration
    ├── NotFound
    ├── Conflict                     the thing exists, or is in a state that does not allow this
    │   ├── Outdated                 it changed since the caller looked
    │   └── VersionRevoked           it was withdrawn, and is brought to no device any more
    ├── AccessDenied
    │   ├── NotAuthenticated
    │   ├── NotPermitted
    │   └── Quarantined
    ├── TrustError                   a signature, digest or rule of the trust model does not hold
    │   ├── SignatureInvalid
    │   ├── MetadataRejected         TUF metadata that breaks the specification's client workflow
    │   ├── AssignmentForOtherDevice
    │   ├── AssignmentExpired
    │   ├── AssignmentReplayed       a sequence number at or below one already accepted
    │   └── DigestMismatch           bytes that are not the bytes that were promised
    ├── ModelError                   a model does not do what its bundle says
    │   ├── ConversionFailed
    │   │   └── UnsupportedOperator  a node of the graph has no counterpart in the target
    │   ├── AccuracyTooLow
    │   ├── VariantUnsupported       no runtime on this device can run the variant
    │   │   └── MemoryBudgetExceeded it needs more memory than models may have here
    │   ├── AcceleratorFailed        an accelerator cannot run a model, or not well; the next best does
    │   ├── SelfTestFailed           golden inputs gave other outputs
    │   │   └── SelfTestTimedOut
    │   ├── ShadowFailed             a candidate could not stand beside the active version
    │   ├── TrialFailed              a version on probation broke a limit
    │   │   ├── TrialCrashed
    │   │   ├── TrialHung
    │   │   ├── TrialNotFinite
    │   │   ├── TrialTooSlow
    │   │   ├── TrialMemoryExceeded
    │   │   └── TrialGoldenFailed    it passed its self-test and no longer does
    │   └── InferenceFailed
    │       ├── InferenceTimedOut
    │       └── InferenceNotFinite
    ├── StorageError
    │   ├── NoSpace
    │   └── StorageCorrupt
    └── Unavailable                  a peer does not answer; trying again later may help
        ├── HubUnavailable
        ├── BrokerUnavailable
        └── DeliveryTimedOut
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import msgspec

MAX_DETAIL_LENGTH = 2000


class Cause(msgspec.Struct, frozen=True):
    """Why something failed, in the form that travels and is stored.

    Attributes:
        code: The stable code of the error's class.
        detail: One sentence for people.
    """

    code: Annotated[str, msgspec.Meta(max_length=64)]
    detail: Annotated[str, msgspec.Meta(max_length=MAX_DETAIL_LENGTH)]


class MusterError(Exception):
    """The root of the tree.

    Args:
        message: What happened, one sentence.
        remedy: What the reader can do about it; empty where the message says it already.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def cause(self) -> Cause:
        """Return this error in the form that is stored and sent."""
        return Cause(self.code, str(self)[:MAX_DETAIL_LENGTH])


class InvalidInput(MusterError):
    """What was given cannot be understood; nothing was changed."""

    code = "invalid_input"


class InvalidName(InvalidInput):
    """A device id, model name or other identifier breaks the naming rule."""

    code = "invalid_name"


class InvalidMessage(InvalidInput):
    """A message from the network breaks the protocol."""

    code = "invalid_message"


class MessageTooLarge(InvalidInput):
    """A message is larger than its kind may be; it was not decoded."""

    code = "message_too_large"


class InvalidManifest(InvalidInput):
    """A bundle's manifest is malformed or contradicts itself."""

    code = "invalid_manifest"


class InvalidAssignment(InvalidInput):
    """An assignment with a good signature has contents that cannot be understood."""

    code = "invalid_assignment"


class InvalidDataset(InvalidInput):
    """A dataset has the wrong shape, missing labels or values that are not numbers."""

    code = "invalid_dataset"


class InvalidModel(InvalidInput):
    """A model, or the way asked for to train one, cannot be understood."""

    code = "invalid_model"


class InvalidPlan(InvalidInput):
    """A rollout plan is refused: it could not be carried out, or not be judged.

    Args:
        message: What is wrong, one sentence.
        remedy: What the reader can do about it.
        field: Where in the plan, such as ``stages[1].devices``; empty for the plan as a whole.
    """

    code = "invalid_plan"

    def __init__(self, message: str, *, remedy: str = "", field: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.field = field


class InvalidTarget(InvalidInput):
    """An expression that says which devices are meant cannot be understood; the message has the place."""

    code = "invalid_target"


class PreconditionRequired(InvalidInput):
    """It is not said of which state of the thing this is meant, and said twice it would do harm."""

    code = "precondition_required"


class InvalidConfiguration(InvalidInput):
    """A setting is missing or has a value that cannot be used."""

    code = "invalid_configuration"


class NotFound(MusterError):
    """The named thing does not exist."""

    code = "not_found"


class Conflict(MusterError):
    """The thing exists already, or is in a state that does not allow the request."""

    code = "conflict"


class Outdated(Conflict):
    """The thing changed since the caller looked, and the caller wanted that to matter."""

    code = "outdated"


class VersionRevoked(Conflict):
    """A version of a model was withdrawn: it is brought to no device any more."""

    code = "version_revoked"


class AccessDenied(MusterError):
    """The request may not be made by this caller."""

    code = "access_denied"


class NotAuthenticated(AccessDenied):
    """The caller did not prove who they are."""

    code = "not_authenticated"


class NotPermitted(AccessDenied):
    """The caller is known, and their role does not allow this."""

    code = "not_permitted"


class Quarantined(AccessDenied):
    """A device said too much for too long; nothing of it is taken for a while."""

    code = "quarantined"


class TrustError(MusterError):
    """A rule of the trust model does not hold; the bytes were not used."""

    code = "trust_error"


class SignatureInvalid(TrustError):
    """A signature does not match, or its key is not vouched for."""

    code = "signature_invalid"


class MetadataRejected(TrustError):
    """TUF metadata breaks the specification's client workflow."""

    code = "metadata_rejected"


class AssignmentForOtherDevice(TrustError):
    """A correctly signed assignment names another device."""

    code = "assignment_for_other_device"


class AssignmentExpired(TrustError):
    """A correctly signed assignment is past its expiry time, or issued in the future."""

    code = "assignment_expired"


class AssignmentReplayed(TrustError):
    """An assignment's sequence number is not above the last accepted one."""

    code = "assignment_replayed"


class DigestMismatch(TrustError):
    """Bytes do not have the SHA-256 digest that was promised for them."""

    code = "digest_mismatch"


class ModelError(MusterError):
    """A model does not do what its bundle says."""

    code = "model_error"


class ConversionFailed(ModelError):
    """A trained model could not be turned into a variant."""

    code = "conversion_failed"


class UnsupportedOperator(ConversionFailed):
    """A node of the graph has no counterpart in the target's format."""

    code = "unsupported_operator"


class AccuracyTooLow(ModelError):
    """A model or variant is below the accuracy that its registration demands."""

    code = "accuracy_too_low"


class VariantUnsupported(ModelError):
    """No runtime of this device can run the variant."""

    code = "variant_unsupported"


class MemoryBudgetExceeded(VariantUnsupported):
    """The variant needs more memory than models may have on this device, or than is free."""

    code = "memory_budget_exceeded"


class AcceleratorFailed(ModelError):
    """An accelerator cannot run a model, or answers golden inputs otherwise; the next best is used."""

    code = "accelerator_failed"


class SelfTestFailed(ModelError):
    """The golden inputs gave other outputs on the device's runtime than the manifest states."""

    code = "self_test_failed"


class SelfTestTimedOut(SelfTestFailed):
    """The golden inputs were not answered in time."""

    code = "self_test_timed_out"


class ShadowFailed(ModelError):
    """A candidate failed beside the active version on inputs that the active version answered."""

    code = "shadow_failed"


class TrialFailed(ModelError):
    """A version on probation broke a limit, or could not be judged."""

    code = "trial_failed"


class TrialCrashed(TrialFailed):
    """The process ended again and again while a candidate ran in it."""

    code = "trial_crashed"


class TrialHung(TrialFailed):
    """A version on probation did not answer in time."""

    code = "trial_hung"


class TrialNotFinite(TrialFailed):
    """A version on probation answered with values that are not finite."""

    code = "trial_not_finite"


class TrialTooSlow(TrialFailed):
    """A version on probation takes longer than its budget."""

    code = "trial_too_slow"


class TrialMemoryExceeded(TrialFailed):
    """A version on probation takes more memory than its budget, or the device has too little left."""

    code = "trial_memory_exceeded"


class TrialGoldenFailed(TrialFailed):
    """A version that passed its self-test no longer gives the golden outputs."""

    code = "trial_golden_failed"


class InferenceFailed(ModelError):
    """A runtime refused an input or failed while computing."""

    code = "inference_failed"


class InferenceTimedOut(InferenceFailed):
    """A model did not answer in time."""

    code = "inference_timed_out"


class InferenceNotFinite(InferenceFailed):
    """A model answered with values that are not finite."""

    code = "inference_not_finite"


class StorageError(MusterError):
    """Something could not be written, or what was written cannot be trusted."""

    code = "storage_error"


class NoSpace(StorageError):
    """There is not enough free space; nothing was written."""

    code = "no_space"


class StorageCorrupt(StorageError):
    """Stored bytes are not the bytes that were stored."""

    code = "storage_corrupt"


class Unavailable(MusterError):
    """A peer does not answer; trying again later may help."""

    code = "unavailable"


class HubUnavailable(Unavailable):
    """The hub's HTTP API does not answer."""

    code = "hub_unavailable"


class BrokerUnavailable(Unavailable):
    """The MQTT broker cannot be reached or refuses the connection."""

    code = "broker_unavailable"


class DeliveryTimedOut(Unavailable):
    """Bytes that were asked for did not arrive in time, after bounded retries."""

    code = "delivery_timed_out"


def all_errors(root: type[MusterError] = MusterError) -> Iterator[type[MusterError]]:
    """Yield every class of the tree, parents first.

    Args:
        root: Where to start.
    """
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)


def error_of(code: str) -> type[MusterError]:
    """Return the class with a code; the root of the tree for a code of another release."""
    return next((kind for kind in all_errors() if kind.code == code), MusterError)
