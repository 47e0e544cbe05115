"""Classify the errors of the AGIRAILS SDK by whether money may have been spent: a table of types, each one tested.

The types are named and not imported, because importing the SDK takes a second. A class that is not named here counts as
its nearest base class that is. The last of those means "unknown", as does every error after which it is open whether
the call took effect.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, cast

from actors.errors.classification import classify_status
from actors.errors.exceptions import classify
from actors.errors.families import CallFailed, NotAdmitted, OutcomeUnknown, Permanent, Throttled

Stage: TypeAlias = Literal["creating", "locking", "locked"]
"""How far a purchase had come: nothing was spent yet, its money was being locked, or was locked."""
Meaning: TypeAlias = Literal["never ran", "permanent", "throttled", "unknown"]

_MEANINGS: dict[Meaning, dict[str, str]] = {
    # It was refused, or did not even begin: it is safe to try it again, or elsewhere.
    "never ran": {
        "errors.mock": "MockStateLockError",
        "errors.transaction": "ContractPausedError TransactionNotFoundError",
        "errors.agent": "NoProviderFoundError ProviderRejectedError",
        "errors.storage": "CircuitBreakerOpenError",
        "utils.circuit_breaker": "CircuitBreakerOpenError",
        "cli.lib.run_request": "QuoteTimeoutError",
        "config.on_chain_state": "OnChainStateError",
        "types.erc8004": "ERC8004Error",
    },
    # It was refused, and every provider would refuse it.
    "permanent": {
        "errors.mock": "MockStateCorruptedError MockStateVersionError",
        "errors.transaction": "DeadlinePassedError InsufficientBalanceError",
        "errors.validation": "InvalidAddressError InvalidAmountError ValidationError",
        "errors.network": "SignatureVerificationError TransactionRevertedError",
        "errors.agent": "AgentLifecycleError QueryCapExceededError ServiceConfigError",
        "errors.storage": "ArchiveBundleValidationError FileSizeLimitError FileSizeLimitExceededError"
        " InsufficientFundsError InvalidCIDError SSRFProtectionError StorageAuthenticationError",
        "config.pending_publish": "SecurityError",
        "cli.commands.test": "AgentNotFoundError InvalidAgentAddressError",
        "types.x402": "X402AmountExceededError X402ConfigError X402NetworkNotAllowedError X402PublishRequiredError"
        " X402SignatureFailedError X402UnsupportedWalletError",
    },
    "throttled": {"errors.storage": "StorageRateLimitError"},
    # It may have taken effect, or the answer to a paid call was lost.
    "unknown": {
        "errors.base": "ACTPError",
        "errors.transaction": "DisputeWindowActiveError EscrowError EscrowNotFoundError InvalidStateTransitionError"
        " TransactionError",
        "errors.network": "NetworkError TransientRPCError",
        "errors.agent": "DeliveryFailedError DisputeRaisedError TimeoutError",
        "errors.storage": "ArweaveDownloadError ArweaveError ArweaveUploadError ContentNotFoundError"
        " DownloadTimeoutError FilebaseDownloadError FilebaseError FilebaseUploadError StorageError UploadTimeoutError",
        "cli.lib.run_request": "DeliveryTimeoutError",
        "api.agirails_app": "AgirailsAppError",
        "delivery.eip712": "DeliveryEip712Error",
        "delivery.keys": "DeliveryCryptoError",
        "receipts.push": "_PushError",
        "receipts.web_receipt": "_UploadFailed",
        "types.x402": "X402ApprovalFailedError X402Error X402PaymentFailedError X402SettlementProofMissingError"
        " X402V2Error",
        "utils.retry": "PermanentError RetryableError TransientError",
        "wallet.aa.bundler_client": "BundlerHTTPError BundlerRPCError",
        "wallet.aa.paymaster_client": "PaymasterError",
    },
}
MEANINGS: dict[str, Meaning] = {
    f"agirails.{module}.{name}": meaning
    for meaning, modules in _MEANINGS.items()
    for module, names in modules.items()
    for name in names.split()
}
"""The meaning of each class, by its full name."""


def classify_agirails(error: Exception, *, provider: str, stage: Stage) -> CallFailed:
    """Return the `CallFailed` for an error of the SDK, or of a library below it. Raise the result `from error`.

    Before money is being locked, nothing can have been spent, so an unknown error means that the call never ran. After
    it is locked, no failure brings it back, so the outcome of every error is unknown.

    >>> family = classify_agirails(TimeoutError("30 s"), provider="alder", stage="locking")
    >>> type(family).__name__, family.charged
    ('OutcomeUnknown', 'held')
    """
    if isinstance(error, CallFailed):
        return error
    text = f"{provider!r}: {type(error).__name__}: {error}"
    if stage == "locked":
        return OutcomeUnknown(text, provider=provider)
    meaning = _meaning_of(error)
    if meaning is None:
        meaning = "permanent" if isinstance(classify(error, provider=provider), Permanent) else "unknown"
        if stage == "locking":
            # Any error, even a bug on this side, may have been raised after the money was locked.
            meaning = "unknown"
    status = cast("object", getattr(error, "status_code", None))
    if meaning == "unknown" and isinstance(status, int) and status >= 300:
        return classify_status(status, provider=provider, body=str(error), paid=stage == "locking", idempotent=False)
    match meaning:
        case "permanent":
            return Permanent(text, provider=provider, outcome="not_started")
        case "throttled":
            millis = cast("object", getattr(error, "retry_after_ms", None))
            wait = millis / 1000 if isinstance(millis, int | float) and 0 <= millis < math.inf else None
            return Throttled(text, provider=provider, retry_after=wait)
        case "unknown" if stage == "locking":
            return OutcomeUnknown(text, provider=provider)
        case _:
            return _never_ran(text, provider)


def _meaning_of(error: Exception) -> Meaning | None:
    """Return the meaning of an error's nearest known class; None for an error that is not of the SDK."""
    for kind in type(error).__mro__:
        meaning = MEANINGS.get(f"{kind.__module__}.{kind.__qualname__}")
        if meaning is not None:
            return meaning
    # A class that a later version of the SDK has added, without a known base class.
    return "unknown" if type(error).__module__.partition(".")[0] == "agirails" else None


def _never_ran(text: str, provider: str) -> CallFailed:
    return NotAdmitted(text, provider=provider)
