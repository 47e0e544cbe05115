"""A reading of failed calls of the user's own, which takes the place of ours."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TypeAlias

from actors.errors.error_tree import text_of
from actors.errors.families import CallFailed
from actors.transports.transport import ProviderCall
from runtime import logger_for

Classify: TypeAlias = Callable[[Exception, ProviderCall], CallFailed | None]
"""Returns what a failed call means, or None to leave that to us. Given what the function or the client raised, or the
`CallFailed` if there was only an answer."""


def check_classify(classify: object) -> None:
    """Raise `TypeError` if `classify` is neither None nor a sync function."""
    if classify is None or (callable(classify) and not inspect.iscoroutinefunction(classify)):
        return
    raise TypeError(f"classify must be a function of (error, call), and not an async one, got {classify!r:.100}")


def own_reading(classify: Classify, error: Exception, call: ProviderCall, *, provider: str) -> CallFailed | None:
    """Return what `classify` makes of an error; None if it leaves that to us, or fails, which is logged."""
    log = logger_for(provider)
    try:
        failure = classify(error, call)
    except (Exception, asyncio.CancelledError) as bug:  # noqa: BLE001 - foreign code, which must not lose the call.
        what = "classify failed for an error of {!r}, which is read without it: {}"
        log.opt(exception=bug).error(what, provider, text_of(bug))
        return None
    if failure is None:
        return None
    if not isinstance(failure, CallFailed):
        log.error("classify returned {} for an error of {!r}, and no CallFailed", type(failure).__name__, provider)
        return None
    if failure.provider is None:
        failure.provider = provider
    return failure
