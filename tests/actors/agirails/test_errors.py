"""Every exception class of the SDK has a meaning, and a version of it that adds one fails here."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import sys

import agirails
import pytest
from agirails.errors import (
    InsufficientBalanceError,
    InvalidAmountError,
    InvalidStateTransitionError,
    MockStateLockError,
    NetworkError,
    StorageRateLimitError,
)

from actors.agirails.errors import MEANINGS, Stage, classify_agirails
from actors.errors.families import CallFailed, NotAdmitted, OutcomeUnknown, Permanent, Throttled, Transient

FAMILIES: dict[str, dict[Stage, type[CallFailed]]] = {
    "never ran": {"creating": NotAdmitted, "locking": NotAdmitted, "locked": OutcomeUnknown},
    "permanent": {"creating": Permanent, "locking": Permanent, "locked": OutcomeUnknown},
    "throttled": {"creating": Throttled, "locking": Throttled, "locked": OutcomeUnknown},
    "unknown": {"creating": NotAdmitted, "locking": OutcomeUnknown, "locked": OutcomeUnknown},
}
NOT_INSTALLED = {"agirails.server.app"}
"""What needs an extra of the SDK."""


def error_classes() -> dict[str, type[Exception]]:
    """Return every exception class that any module of the SDK defines, by its full name."""
    for module in pkgutil.walk_packages(agirails.__path__, "agirails."):
        if module.name not in NOT_INSTALLED:
            importlib.import_module(module.name)
    found: dict[str, type[Exception]] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "agirails":
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith("agirails"):
                    found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


CLASSES = error_classes()


class Something(str):
    """Stands for whatever text or code an error is made of."""

    __slots__ = ()
    value = "something"


def made(kind: type[Exception]) -> Exception:
    """Make an instance, with something in the place of whatever its class asks for: its type alone is to decide."""
    if not inspect.isfunction(kind.__init__):
        return kind("something")
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    needed = [one for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    return kind(*(1 if one.annotation == "int" else Something("something") for one in needed))


def test_the_sdk_has_as_many_error_classes_as_are_known():
    assert len(CLASSES) >= 77
    assert set(MEANINGS) - set(CLASSES) == set()


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_class_of_the_sdk_has_a_meaning_at_every_stage(name: str):
    assert name in MEANINGS, f"say in actors/agirails_errors.py what {name} means for the money"
    for stage, family in FAMILIES[MEANINGS[name]].items():
        error = classify_agirails(made(CLASSES[name]), provider="alder", stage=stage)
        assert type(error) is family
        assert error.provider == "alder"
        assert error.charged == ("held" if family is OutcomeUnknown else "no")
        assert family is OutcomeUnknown or error.outcome == "not_started"


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (MockStateLockError("mock-state.json"), NotAdmitted),
        (InsufficientBalanceError("0xa", 2, 1), Permanent),
        (InvalidAmountError("1"), Permanent),
        (InvalidStateTransitionError("CANCELLED", "COMMITTED"), OutcomeUnknown),
        (TimeoutError("with_lock operation timed out"), OutcomeUnknown),
        (OSError(28, "No space left on device"), OutcomeUnknown),
        (ConnectionResetError(), OutcomeUnknown),
        (PermissionError(13, "Permission denied"), OutcomeUnknown),
        (KeyError("a bug"), OutcomeUnknown),
    ],
)
def test_what_fails_while_money_is_being_locked_is_unknown_unless_its_type_says_otherwise(
    error: Exception, family: type[CallFailed]
):
    assert type(classify_agirails(error, provider="alder", stage="locking")) is family


def test_before_that_nothing_can_have_been_spent():
    assert type(classify_agirails(TimeoutError(), provider="alder", stage="creating")) is NotAdmitted
    assert type(classify_agirails(ValueError(), provider="alder", stage="creating")) is Permanent


@pytest.mark.parametrize(("status", "family"), [(429, Throttled), (503, Transient), (500, OutcomeUnknown)])
def test_a_status_says_more_than_the_type(status: int, family: type[CallFailed]):
    error = NetworkError("no", status_code=status)

    assert type(classify_agirails(error, provider="alder", stage="locking")) is family
    assert type(classify_agirails(error, provider="alder", stage="locked")) is OutcomeUnknown


def test_the_wait_that_a_throttled_storage_asks_for_is_kept():
    error = classify_agirails(StorageRateLimitError(1500), provider="alder", stage="creating")
    assert error.retry_after == 1.5
    for millis in (-1, math.nan, math.inf, "soon", None):
        odd = StorageRateLimitError(1500)
        odd.retry_after_ms = millis
        assert classify_agirails(odd, provider="alder", stage="creating").retry_after is None


def test_a_class_that_a_later_version_adds_is_taken_for_its_base_or_else_unknown():
    class Newer(InsufficientBalanceError):
        pass

    orphan = type("Orphan", (Exception,), {"__module__": "agirails.errors.newer"})

    assert type(classify_agirails(Newer("0xa", 2, 1), provider="alder", stage="locking")) is Permanent
    assert type(classify_agirails(orphan(), provider="alder", stage="locking")) is OutcomeUnknown


def test_a_classified_error_stays_what_it_is():
    error = Throttled("slow down", provider="alder")
    assert classify_agirails(error, provider="alder", stage="locked") is error
