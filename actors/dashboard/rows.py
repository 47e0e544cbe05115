"""Rows of what was asked for: providers, accounts, held calls and actors. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.dashboard.view import AccountRow, ActorLine, ActorPage, HeldRow, ProviderRow, RequestRow, WaitingRow, shown
from actors.limits.waiting import LearnedPace

if TYPE_CHECKING:
    from actors.dashboard.facts import ProviderCounts
    from actors.dashboard.messages import Viewport
    from actors.ledger.messages import Unsettled
    from actors.ledger.statement import Statement
    from actors.limits.waiting import Waiting
    from actors.supervisor.messages import RequestStatus, TargetStatus
    from runtime import ActorSystem


def provider_row(supervisor: str, status: TargetStatus, counted: ProviderCounts | None, *, now: float) -> ProviderRow:
    """Return what is shown of a provider: its state, and what was counted of it."""
    p50, p95 = (None, None) if counted is None else counted.series.recent(now)
    paces = (one.evidence.rate for one in status.waiting if isinstance(one.evidence, LearnedPace))
    return ProviderRow(
        supervisor=supervisor,
        name=shown(status.provider.name),
        breaker=status.breaker,
        under_way=status.under_way,
        queued=status.queued,
        calls=status.calls,
        failures=status.failures,
        trips=status.trips,
        spent=status.spent,
        price=status.provider.price,
        healthy=status.healthy,
        problem=status.problem and shown(status.problem),
        left=tuple(map(shown, status.left)),
        waiting=tuple(wait_row(one) for one in status.waiting),
        rate=next(paces, None),
        hidden_calls=status.hidden_calls,
        p50=p50,
        p95=p95,
        first_piece=status.first_piece,
        last_error=None if counted is None else counted.last_error,
        last_words=None if counted is None else counted.last_words,
        last_error_at=None if counted is None else counted.last_error_at,
    )


def wait_row(waiting: Waiting) -> WaitingRow:
    """Return why something waits; its words tell no time, which whatever shows them counts on by itself."""
    text = waiting.evidence
    if isinstance(text, LearnedPace):
        rate = "held back" if text.rate is None else f"limited to {text.rate:.3g}/s"
        text = f"{rate} since {text.refusals} refusals" if text.refusals else f"{rate} by its headers"
    provider = waiting.provider and shown(waiting.provider)
    return WaitingRow(
        reason=waiting.reason,
        since=waiting.since,
        until=waiting.until,
        text=shown(text),
        provider=provider,
        before=waiting.before,
    )


def request_row(supervisor: str, status: RequestStatus) -> RequestRow:
    """Return what is shown of a request that is under way: neither its input nor its key."""
    return RequestRow(
        supervisor=supervisor,
        request_id=shown(status.request_id),
        service=shown(status.service),
        account=status.account and shown(status.account),
        since=status.since,
        deadline=status.deadline,
        calls=status.calls,
        failed=len(status.attempts),
        cost=status.cost,
        provider=status.provider and shown(status.provider),
        waiting=tuple(map(wait_row, status.waiting[:5])),
    )


def account_row(ledger: str, statement: Statement, *, name: str) -> AccountRow:
    """Return what is shown of an account by this name."""
    period, renewal = statement.period, statement.renewal
    cap = "" if statement.cap is None else str(statement.cap)
    return AccountRow(
        ledger=ledger,
        name=shown(name),
        parent=statement.parent and shown(statement.parent),
        cap=statement.cap,
        reserved=statement.reserved,
        held=statement.held,
        settled=statement.settled,
        estimated=statement.estimated,
        used=statement.used,
        renewal=None if renewal is None else str(renewal),
        renews_at=None if period is None else period.end,
        is_closed=statement.is_closed,
        question=statement.question,
        paused_cap=cap if statement.is_paused else None,
    )


def held_row(ledger: str, one: Unsettled) -> HeldRow:
    """Return what is shown of a held call: not its key, which is its caller's."""
    return HeldRow(
        ledger=ledger,
        reservation=one.reservation,
        provider=shown(one.provider),
        amount=one.amount,
        accounts=tuple(map(shown, one.accounts[:5])),
        since=one.since,
        is_passed_over=one.is_passed_over,
    )


def actor_page(system: ActorSystem, look: Viewport) -> ActorPage:
    """Return the lines of the tree that are looked at."""
    rows = system.rows(look.opened, first=look.first, most=look.most)
    return ActorPage(
        total=rows.total,
        first=rows.first,
        rows=tuple(
            ActorLine(name=shown(one.path.rpartition("/")[2]), **msgspec.structs.asdict(one)) for one in rows.rows
        ),
    )
