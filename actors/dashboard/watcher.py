"""The actor that knows what is shown of its system: it counts events, and asks for the rest while a viewer looks.

What it asks for follows what has changed and what is looked at: of ten thousand actors, only the lines on the screen;
of a thousand accounts, only those whose money has moved. Without a viewer it asks for nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from actors.dashboard.acts import Acts
from actors.dashboard.board import MAX_ACCOUNTS, MAX_HELD, MAX_REQUESTS, Board
from actors.dashboard.facts import ALL, Facts
from actors.dashboard.messages import Act, ActDone, GetUpdate
from actors.dashboard.rows import account_row, actor_page, held_row, provider_row, request_row
from actors.errors.families import CallFailed
from actors.ledger.ledger import LEDGERS
from actors.ledger.messages import GetHeld, ListStatements
from actors.supervisor.messages import GetRequests, GetStatus
from actors.supervisor.supervisor import SUPERVISORS
from runtime import Actor, Mailbox, RuntimeFault, handles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.ledger.statement import Statement
    from actors.supervisor.messages import RequestsUnderWay, TargetStatus
    from runtime import ActorRef, ActorSystem, Subscription

INTERVAL = 0.25
"""Seconds for which what was asked for holds, so that all viewers together ask four times a second at most."""
PROVIDERS_AT_ONCE = 50
"""The providers whose state is made within some milliseconds; for more, it is asked for less often."""
ACCOUNTS_AT_ONCE = 100
"""The accounts whose statements are made and shown within a millisecond or two."""
SLICES = 3
"""So many times as many accounts that have changed are asked for at once, in turns of the loop of their own."""
IDLE_INTERVAL = 1.0
"""Seconds after which the state of providers is asked for though no event told of a change."""
ASK_TIMEOUT = 5.0
CHARTS_AT_ONCE = 20
MAILBOX = Mailbox(capacity=1_000)
TOTAL = ""
"""The name under which all accounts of a ledger together are shown."""


class Watcher(Actor[GetUpdate | Act]):
    """Answers viewers with what has changed, and does what operators ask for if they `may_act`.

    The events are counted from its start on. Spawn one for a system; its tables outlive its restarts.
    """

    def __init__(self, system: ActorSystem, *, may_act: bool = False) -> None:
        self.system = system
        self.may_act = may_act
        self.subscriptions: tuple[Subscription, ...] = ()
        self.asking = asyncio.Lock()
        self.asked_at = self.status_at = -1e9
        self.count = self.under_way = 0
        self.waits = Counter[str]()
        self.open_accounts: dict[str, int] = {}
        self.held: dict[str, int] = {}

    def started(self) -> None:
        context = self.context
        epoch = f"{context.random.getrandbits(64):x}"
        self.board = Board(epoch)
        self.facts = Facts(self.board, now=asyncio.get_running_loop().time, may_act=self.may_act)
        self.acts = Acts(self.system, context)
        self.subscriptions = (
            *self.facts.subscribe(context.events),
            context.events.subscribe(ActDone, self._act_done),
        )

    def stopped(self) -> None:
        for subscription in self.subscriptions:
            subscription.cancel()

    @handles(GetUpdate, concurrent=100)
    async def update(self, message: GetUpdate) -> bytes | None:
        """Tell what has changed for a viewer, as the JSON of an `Update`."""
        await self._refresh()
        look = message.look
        actors = trace = None
        if look.most:
            actors = actor_page(self.system, look)
        if look.request is not None:
            trace = self.facts.trace(look.request)
        return self.board.update(message.seen, now=self.context.now(), actors=actors, trace=trace)

    @handles(Act, concurrent=20)
    async def act(self, message: Act) -> str:
        """Do what an operator asks for, and record that."""
        return await self.acts.do(message, allowed=self.may_act)

    def _act_done(self, event: ActDone) -> None:
        facts = self.facts
        facts.note("act", "warn", event.subject, f"{event.who}: {event.kind}: {event.outcome}")
        facts.is_status_dirty = facts.is_held_dirty = True
        facts.dirty_accounts[ALL] = None

    # What is asked for.

    async def _refresh(self) -> None:
        """Ask for what has changed, once for all viewers."""
        async with self.asking:
            now = self.context.now()
            if now < self.asked_at + INTERVAL:
                return
            self.asked_at = now
            ledgers = self.context.registry.find(LEDGERS)
            if self.facts.dirty_accounts or self.facts.moved_accounts:
                await self._ask_for_accounts(ledgers)
            if self.facts.is_held_dirty:
                await self._ask_for_held(ledgers)
            if await self._ask_for_status(now):
                await self._ask_for_requests()
            self._draw_charts(now)
            self._count()

    async def _ask_for_accounts(self, ledgers: tuple[ActorRef[Any], ...]) -> None:
        """Ask for some of the accounts that have changed; the rest is asked for at the next times, in its turn."""
        facts = self.facts
        names = facts.take_dirty(most=ACCOUNTS_AT_ONCE * SLICES)
        for ref in ledgers:
            if ALL in names:
                await self._ask_for_all_accounts(ref)
                continue
            table = self.board.accounts
            has_room = len(table) < MAX_ACCOUNTS
            shown_ones = [one for one in names if has_room or account_key(ref, one) in table]
            for some in batched(shown_ones, ACCOUNTS_AT_ONCE):
                found = await self._ask_for_some(ref, ListStatements(names=some))
                if found is not None:
                    for name in set(some) - found:
                        table.remove(account_key(ref, name))

    async def _ask_for_all_accounts(self, ref: ActorRef[Any]) -> None:
        """Ask for as many accounts as are shown, and forget those that are open no longer."""
        names = set[str]()
        for first in range(0, MAX_ACCOUNTS, ACCOUNTS_AT_ONCE):
            found = await self._ask_for_some(ref, ListStatements(first=first, most=ACCOUNTS_AT_ONCE))
            if found is None:
                return
            names |= found
            if len(found) < ACCOUNTS_AT_ONCE:
                break
        self._forget_accounts(ref, names)

    async def _ask_for_some(self, ref: ActorRef[Any], message: ListStatements) -> set[str] | None:
        """Ask for a few accounts, and return the names of those that there are; None if there is no answer."""
        answer = await self._ask(ref, message)
        if answer is None:
            self.facts.dirty_accounts[ALL] = None
            return None
        table = self.board.accounts
        self.open_accounts[ref.path] = answer.open
        self._put_account(ref, answer.total, TOTAL)
        for one in answer.accounts:
            if len(table) < MAX_ACCOUNTS or account_key(ref, one.name) in table:
                self._put_account(ref, one, one.name)
        await asyncio.sleep(0)  # What this costs is spread over turns of the loop.
        return {one.name for one in answer.accounts}

    def _put_account(self, ref: ActorRef[Any], statement: Statement, name: str) -> None:
        key = account_key(ref, name)
        self.acts.accounts[key] = (ref, name)
        row = account_row(ref.path, statement, name=name)
        self.board.accounts.put(key, row)

    def _forget_accounts(self, ref: ActorRef[Any], names: set[str]) -> None:
        kept = {account_key(ref, name) for name in (*names, TOTAL)}
        for key in self.board.accounts.rows():
            if key not in kept and self.acts.accounts[key][0] is ref:
                self.board.accounts.remove(key)
                del self.acts.accounts[key]

    async def _ask_for_held(self, ledgers: tuple[ActorRef[Any], ...]) -> None:
        facts, rows = self.facts, dict[str, Any]()
        facts.is_held_dirty = False
        for ref in ledgers:
            answer = await self._ask(ref, GetHeld())
            if answer is None:
                facts.is_held_dirty = True
                continue
            self.held[ref.path] = len(answer)
            for one in answer[:MAX_HELD]:
                key = f"{ref.path} {one.reservation}"
                self.acts.held[key] = (ref, one.reservation)
                rows[key] = held_row(ref.path, one)
        self.board.held.keep_only(set(rows))
        self.acts.held = {key: self.acts.held[key] for key in rows}
        for key, row in rows.items():
            self.board.held.put(key, row)

    async def _ask_for_status(self, now: float) -> bool:
        facts = self.facts
        pause = INTERVAL * max(1.0, self.count / PROVIDERS_AT_ONCE) if facts.is_status_dirty else IDLE_INTERVAL
        if now < self.status_at + pause:
            return False
        self.status_at, facts.is_status_dirty = now, False
        keys = set[str]()
        for ref in self.context.registry.find(SUPERVISORS):
            statuses: tuple[TargetStatus, ...] | None = await self._ask(ref, GetStatus())
            if statuses is None:
                facts.is_status_dirty = True
                continue
            for number, status in enumerate(statuses):
                if number % PROVIDERS_AT_ONCE == PROVIDERS_AT_ONCE - 1:
                    await asyncio.sleep(0)  # What this costs is spread over turns of the loop.
                key = f"{ref.path} {status.provider.name}"
                keys.add(key)
                self.acts.providers[key] = (ref, status.provider.name)
                counted = facts.providers.get(status.provider.name)
                self.board.providers.put(key, provider_row(ref.path, status, counted, now=now))
        self.count = len(keys)
        self.board.providers.keep_only(keys)
        return True

    async def _ask_for_requests(self) -> None:
        rows = dict[str, Any]()
        self.under_way, self.waits = 0, Counter[str]()
        for ref in self.context.registry.find(SUPERVISORS):
            answer: RequestsUnderWay | None = await self._ask(ref, GetRequests(most=MAX_REQUESTS))
            if answer is not None:
                self.under_way += answer.count
                self.waits.update(answer.waiting)
                rows |= {f"{ref.path} {one.request_id}": request_row(ref.path, one) for one in answer.requests}
        self.board.requests.keep_only(set(rows))
        for key, row in rows.items():
            self.board.requests.put(key, row)

    async def _ask(self, ref: ActorRef[Any], message: Any) -> Any:
        """Return an answer; None if there is none, as of an actor that restarts."""
        try:
            return await ref.ask(message, timeout=ASK_TIMEOUT)
        except (CallFailed, RuntimeFault) as error:
            self.facts.note("actor", "warn", ref.path, f"does not tell of itself: {type(error).__name__}")
            return None

    def _draw_charts(self, now: float) -> None:
        """Bring the charts up to date of what has ended a step, some at a time."""
        facts = self.facts
        self.board.charts.put(TOTAL, facts.all.chart(now))
        for name in facts.charts_due(now, most=CHARTS_AT_ONCE):
            self.board.charts.put(name, facts.providers[name].series.chart(now))

    def _count(self) -> None:
        facts = self.facts
        facts.totals = msgspec.structs.replace(
            facts.totals,
            requests=facts.requests,
            failed=facts.failed,
            restarts=facts.restarts,
            crashes=facts.crashes,
            dead_letters=facts.dead_letters,
            accounts=sum(self.open_accounts.values()),
            providers=self.count,
            held=sum(self.held.values()),
            under_way=self.under_way,
            waiting=self.waits.total(),
            waits=dict(self.waits),
        )
        self.board.totals.put(TOTAL, facts.totals)

    def __repr__(self) -> str:
        return f"<Watcher of {self.system.name}>"


def batched(names: list[str], size: int) -> Iterator[tuple[str, ...]]:
    """Yield so many of the names at a time; of none, no names once.

    >>> list(batched(["a", "b", "c"], 2)), list(batched([], 2))
    ([('a', 'b'), ('c',)], [()])
    """
    for first in range(0, max(1, len(names)), size):
        yield tuple(names[first : first + size])


def account_key(ref: ActorRef[Any], name: str) -> str:
    """Return the key of the row of an account."""
    return f"{ref.path} {name}"
