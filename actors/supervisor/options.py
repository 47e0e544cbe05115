"""What a request may ask for beside its input: the same options for one request and for each of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.discovery.offers import ANY_PROVIDER
from actors.limits.class_queue import Priority, check_priority
from actors.money import OptionalAmountField, amount_default, take_amount
from actors.providers.provider import ProviderFilter, as_filter
from actors.providers.requirement import NO_REQUIREMENT, Requirement
from actors.providers.selection import SelectionStrategy, check_strategy
from actors.supervisor.messages import AfterCut, OnBadAnswer, OnRefused, OnUnknown, SmartRequest, check_on_unknown
from actors.transports.streaming import OnLeave, StreamTerms, check_on_leave
from actors.validation import SaysOptionNames, check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.money import Amount
    from actors.providers.provider import Predicate

DEFAULT_STRATEGY: SelectionStrategy = "best"


class RequestOptions(msgspec.Struct, frozen=True, kw_only=True, metaclass=SaysOptionNames):
    """The options of requests that are alike; see `SmartRequest` for what each means.

    `budget` caps a request, in dollars as str, int or Decimal (None: no cap), and `timeout` is its time in seconds.
    `strategy` ranks the providers (None: "best" for one request, "balanced" in a batch); after each failure the next
    of `fallback_strategies` does, the last of which holds on. `risk` is in dollars too, and bounds what may be paid
    twice (None: as the market says). `on_leave` says what becomes of a stream whose consumer leaves (None: as
    the market says). `priority` is the class in which it waits, "high", "normal" or "low", and
    `max_waiting` the requests of its tenant that may wait (None: as many as the market lets wait). `trace` is the trace
    that it is part of, by its W3C headers.

    >>> RequestOptions(budget="0.20", tenant="acme").request("translation", "Hello").budget
    Micros(200000)
    """

    budget: OptionalAmountField = amount_default(None)
    where: ProviderFilter = ANY_PROVIDER
    requirement: Requirement = NO_REQUIREMENT
    strategy: SelectionStrategy | None = None
    fallback_strategies: tuple[SelectionStrategy, ...] = ()
    health_check: bool = False
    timeout: float = 30.0
    weights: dict[str, int] = {}
    tenant: str | None = None
    on_unknown: OnUnknown | None = None
    on_refused: OnRefused = "fail"
    on_bad_answer: OnBadAnswer = "fail"
    risk: OptionalAmountField = amount_default(None)
    on_leave: OnLeave | None = None
    priority: Priority = "normal"
    max_waiting: int | None = None
    trace: dict[str, str] | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "fallback_strategies", several(self.fallback_strategies))
        if not isinstance(self.where, ProviderFilter):
            msgspec.structs.force_setattr(self, "where", as_filter(self.where))
        for strategy in (*(() if self.strategy is None else (self.strategy,)), *self.fallback_strategies):
            check_strategy(strategy)
        if self.budget is not None:
            take_amount(self, "budget")
        if self.risk is not None:
            take_amount(self, "risk")
        check_on_unknown(self.on_unknown, self.risk)
        check_on_leave(self.on_leave)
        check_priority(self.priority)
        if self.max_waiting is not None:
            check_count("max_waiting", self.max_waiting, least=0, unit="request")

    def changed(self, **given: Any) -> RequestOptions:
        """Return these options with what is given in place of their own; None is not given.

        `on_unknown` and `risk` are two ways to say one thing: each takes the place of the other.
        """
        changes = {name: value for name, value in given.items() if value is not None}
        for name, other in (("on_unknown", "risk"), ("risk", "on_unknown")):
            if name in changes:
                changes.setdefault(other, None)
        return msgspec.structs.replace(self, **changes) if changes else self

    def request(
        self,
        service: str,
        input: Any,  # noqa: A002 - as `SmartRequest` calls it.
        *,
        budget: Amount | None = None,
        where: ProviderFilter | Predicate | None = None,
        strategy: SelectionStrategy | None = None,
        fallback_strategies: Sequence[SelectionStrategy] | None = None,
        health_check: bool | None = None,
        timeout: float | None = None,
        on_unknown: OnUnknown | None = None,
        risk: Amount | None = None,
        account: str | None = None,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        repurchase: bool = False,
        stream: StreamTerms | None = None,
        after_cut: AfterCut = "fail",
        priority: Priority | None = None,
    ) -> SmartRequest:
        """Return the request for one input, with what is given in place of these options' own, as by `changed`.

        Only the request checks what is given, because this is done for each.

        >>> RequestOptions(strategy="fastest").request("translation", "Hello", strategy="cheapest").strategies
        ('cheapest',)
        """
        first = strategy if strategy is not None else self.strategy or DEFAULT_STRATEGY
        others = self.fallback_strategies if fallback_strategies is None else several(fallback_strategies)
        has_way = on_unknown is not None or risk is not None
        return SmartRequest(
            service=service,
            input=input,
            timeout=self.timeout if timeout is None else timeout,
            budget=self.budget if budget is None else budget,
            where=self.where if where is None else as_filter(where),
            requirement=self.requirement,
            strategies=(first, *others),
            health_check=self.health_check if health_check is None else health_check,
            account=account,
            weights=dict(self.weights),
            tenant=self.tenant,
            request_id=request_id,
            idempotency_key=idempotency_key,
            repurchase=repurchase,
            on_unknown=on_unknown if has_way else self.on_unknown,
            on_refused=self.on_refused,
            on_bad_answer=self.on_bad_answer,
            risk=risk if has_way else self.risk,
            stream=stream,
            after_cut=after_cut,
            priority=self.priority if priority is None else priority,
            max_waiting=self.max_waiting,
            trace=self.trace,
        )


def several(strategies: Sequence[SelectionStrategy]) -> tuple[SelectionStrategy, ...]:
    """Return these strategies as a tuple; raises TypeError for a text, whose letters are none."""
    if isinstance(strategies, str):
        raise TypeError(f"fallback_strategies must be several strategies, got the text {strategies!r}")
    return tuple(strategies)


DEFAULT_OPTIONS = RequestOptions()
