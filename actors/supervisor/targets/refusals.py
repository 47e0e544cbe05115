"""What a provider has refused of late, and which requests it is left out for. Pure.

A refusal of the key, the account or the region concerns every request. A request alone must not take a provider from
others by what its own input caused, such as the name of a model, a voice or a file that the provider does not have. So
such a refusal is kept with the names in the words of the provider that stand in the input too. It concerns requests
with the very same input, until a second input with the same names is refused; then it concerns all requests for that
service whose input has these names. If the words name nothing of the input, these are all requests for the service.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.errors.families import CallFailed, LeftAlone, Permanent, QuotaExhausted
from actors.supervisor.targets.leaving import REFUSAL_WAITS, Leave, leave

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOR_ALL = frozenset({"key", "account", "region"})
"""What a refusal may concern that is the same for every request."""
MAX_REFUSALS = 32
"""The refusals of names that are kept for one provider, the oldest of which is forgotten first."""
MAX_NAME = 200
"""Characters of a name at most; a longer text in an input is none."""
MAX_SAID = 500
"""Characters of the words of a provider that are kept."""
MAX_VALUES = 1_000
"""The values of an input that are searched for names."""
NEVER = Leave(left_at=-math.inf, until=-math.inf)


class Subject:
    """What of a request a refusal may concern: its service, its input as a whole, and the names in it."""

    def __init__(self, service: str, given: Any, *, tenant: str = "default") -> None:
        self.service = service
        self.tenant = tenant
        self._input = given

    @functools.cached_property
    def digest(self) -> bytes:
        """Stands for the input: inputs that differ have different ones."""
        try:
            data = msgspec.msgpack.encode(self._input, enc_hook=_fields_of, order="deterministic")
        except (TypeError, ValueError, OverflowError, RecursionError):
            # It is an object that only a function takes.
            data = str(id(self._input)).encode()
        return hashlib.blake2b(data, digest_size=16).digest()

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The short texts in the input, each of which may be a name."""
        return frozenset(_texts_in(self._input))


def _fields_of(given: object) -> dict[str, object]:
    """Return the values of an object of no type that msgspec knows, such as a model of pydantic, by name."""
    fields = getattr(given, "__dict__", None)
    if not fields:
        raise TypeError(f"{type(given).__name__} has no values")
    return dict(fields)


NO_SUBJECT = Subject("", None)
"""That of a call without a request."""


def _texts_in(given: Any) -> Iterator[str]:
    rest: list[object] = [given]
    for _ in range(MAX_VALUES):
        if not rest:
            return
        value = rest.pop()
        if isinstance(value, str):
            if 0 < len(value) <= MAX_NAME:
                yield value
        else:
            rest.extend(islice(_parts_of(value), MAX_VALUES))


def _parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value).values()
    if isinstance(value, list | tuple | set | frozenset):
        return cast("Iterable[Any]", value)
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.astuple(value)
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return dict(getattr(value, "__dict__", {})).values()


class StandingRefusal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A provider `said` no to what it `concerns`, and is left alone; by requests for `service` if that is not None.

    It said so to `tenant`, and what it said is told to no other.

    `inputs` are the digests of the inputs that were refused, two at most. While there is one, only requests with that
    input are concerned; from two on it is all requests whose input has the `names`.
    """

    concerns: str
    said: str
    tenant: str
    leave: Leave
    service: str | None = None
    names: frozenset[str] = frozenset()
    inputs: tuple[bytes, ...] = ()

    @property
    def is_for_others(self) -> bool:
        """Whether it concerns more than the requests with one input."""
        return len(self.inputs) != 1

    @property
    def what(self) -> str:
        """What is refused, in words."""
        if self.service is None:
            return f"the {self.concerns}"
        if self.names:
            return f"{', '.join(map(repr, sorted(self.names)))} for {self.service!r}"
        return f"inputs for {self.service!r}" if self.is_for_others else f"this input for {self.service!r}"

    def has_names_of(self, subject: Subject) -> bool:
        """Tell whether what is refused is in a request, apart from its input as a whole."""
        return self.service is None or (self.service == subject.service and self.names <= subject.names)

    def is_about(self, subject: Subject) -> bool:
        """Tell whether a request may not call the provider."""
        return self.has_names_of(subject) and (self.is_for_others or self.inputs[0] == subject.digest)

    def wait(self, now: float) -> float:
        """Return the seconds for which the provider is left alone; infinity while one call finds out."""
        return self.leave.wait(now)

    def told_to(self, tenant: str) -> StandingRefusal:
        """Return what a tenant may know of it."""
        return self if tenant == self.tenant else msgspec.structs.replace(self, said="")

    def error(self, provider: str, wait: float) -> LeftAlone:
        """Return the error of a request that may not call the provider for `wait` seconds."""
        alone = LeftAlone(provider, what=self.what, said=self.said, retry_after=None if wait == math.inf else wait)
        if self.leave.resets_at is not None and wait != math.inf:
            alone.resets_after = wait + self.leave.resets_at - self.leave.until
        return alone


class Refusals(msgspec.Struct, frozen=True, gc=False):
    """The refusals of one provider that are not over; what calls say that began before `since` is of no account."""

    all: tuple[StandingRefusal, ...] = ()
    since: float = -math.inf

    def wait(self, subject: Subject, now: float) -> tuple[StandingRefusal, float] | None:
        """Return the refusal that keeps a request waiting the longest, and for how long; None if it may call."""
        waits = [(one.wait(now), one) for one in self.all if one.is_about(subject)]
        wait, one = max(waits, key=lambda pair: pair[0], default=(0.0, None))
        return None if one is None or wait <= 0 else (one, wait)

    def tried(self, subject: Subject) -> Refusals:
        """Return what they are after a call for a request has begun, which finds out about those that are about it."""
        if not any(one.is_about(subject) for one in self.all):
            return self
        return Refusals(
            tuple(_with(one, one.leave.tried()) if one.is_about(subject) else one for one in self.all), self.since
        )


NO_REFUSALS = Refusals()


def concern_of(error: CallFailed | None) -> str | None:
    """Return what a failure concerns if its provider is to be left alone, else None.

    >>> concern_of(QuotaExhausted("pay first")), concern_of(Permanent("no such model", scope="provider"))
    ('account', 'name')
    >>> concern_of(Permanent("too long", scope="here"))
    """
    if isinstance(error, QuotaExhausted):
        return "account"
    if isinstance(error, Permanent) and error.scope == "provider" and error.concerns != "content":
        return error.concerns if error.concerns in FOR_ALL else "name"
    return None


def after_answer(refusals: Refusals, subject: Subject, *, started: float) -> Refusals:
    """Return the refusals after a call that began at `started` was answered: what it has proved wrong is over."""
    if not refusals.all:
        return refusals
    kept = tuple(one for one in refusals.all if not (one.has_names_of(subject) and one.leave.is_before(started)))
    return Refusals(kept, refusals.since)


def after_failure(
    refusals: Refusals, error: CallFailed | None, subject: Subject, *, started: float, now: float, random: float
) -> Refusals:
    """Return the refusals after a call that began at `started` failed, or was cancelled.

    If the provider refused it, there is one more, or a longer wait. If it was made to find out, and told nothing, the
    next call may find out.
    """
    concerns = concern_of(error)
    if refusals.all:
        kept = (_with(one, one.leave.untold(started)) if one.is_about(subject) else one for one in refusals.all)
        refusals = Refusals(tuple(kept), refusals.since)
    if error is None or concerns is None or started < refusals.since:
        return refusals
    said, tenant = error.said or " ".join(str(error).split())[:MAX_SAID], subject.tenant
    if concerns in FOR_ALL:
        new = StandingRefusal(concerns=concerns, said=said, tenant=tenant, leave=NEVER)
    else:
        names = frozenset(name for name in subject.names if is_named(name, said))
        new = StandingRefusal(
            concerns=concerns,
            said=said,
            tenant=tenant,
            leave=NEVER,
            service=subject.service,
            names=names,
            inputs=(subject.digest,),
        )
    return _after_refusal(refusals, new, started=started, now=now, random=random, stated=error.retry_after)


def is_named(name: str, said: str) -> bool:
    """Tell whether a name stands in what a provider said, and not only as a part of a word.

    >>> is_named("gpt-9", "The model `gpt-9` does not exist"), is_named("mode", "The model `gpt-9` does not exist")
    (True, False)
    """
    return name in said and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said) is not None


def _after_refusal(
    refusals: Refusals, new: StandingRefusal, *, started: float, now: float, random: float, stated: float | None
) -> Refusals:
    """Return the refusals with a new one.

    There are four cases:

    1. It is the first of what it concerns.
    2. It is the second input with these names: from now on it concerns others too, at first for a short time.
    3. The call began before the provider was left, and tells nothing new.
    4. The call was made to find out: the next wait is longer.
    """
    before = next((one for one in refusals.all if (one.service, one.names) == (new.service, new.names)), None)
    last, inputs = None, new.inputs
    if before is not None and not before.is_for_others and new.inputs != before.inputs:
        inputs = (*before.inputs, *new.inputs)
    elif before is not None:
        if not before.leave.is_before(started):
            return refusals
        last, inputs = before.leave, before.inputs
    wait = leave(last, REFUSAL_WAITS, now=now, random=random, stated=stated)
    others = [one for one in refusals.all if one is not before]
    if len(others) >= MAX_REFUSALS:
        # The refusal that concerns every request is never forgotten.
        others.remove(next(one for one in others if one.service is not None))
    return Refusals((*others, msgspec.structs.replace(new, leave=wait, inputs=inputs)), refusals.since)


def _with(one: StandingRefusal, wait: Leave) -> StandingRefusal:
    return one if wait is one.leave else msgspec.structs.replace(one, leave=wait)
