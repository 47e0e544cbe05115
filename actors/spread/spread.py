"""A supervisor whose requests are served on the nodes of a cluster, while its ledger stays at home."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import CallFailed, NotAdmitted, OutcomeUnknown, Permanent
from actors.ledger.answers import decode
from actors.ledger.keys import own_id
from actors.rate_limiter.lease_owner import LeaseOwner
from actors.spread.messages import GetNodes, GetNodeStatus, SeatTerms, ServeAway, failure_of
from actors.spread.share import (
    by_own_clock,
    error_by_own_clock,
    of_all_nodes,
    result_by_own_clock,
    seats_of,
    with_leased_limits,
)
from actors.supervisor.client import ANSWER_GRACE
from actors.supervisor.messages import GetStatus, Isolate, Release, ReplaceMarket, SmartRequest
from actors.supervisor.supervisor import LEDGER_MAILBOX, MAX_REQUESTS, Supervisor
from runtime import ActorCrashed, ActorStopped, AskTimeout, Message, Restart, RuntimeFault, Terminated, handles
from runtime.cluster import NotSendable, RemoteCrash, RemoteRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.market.market import Market
    from actors.spread.deputy import Deputy
    from actors.spread.messages import ServedAway
    from actors.supervisor.messages import MarketChange, SmartResult, TargetStatus
    from runtime import ActorRef
    from runtime.cluster import Cluster

LOOK_EVERY = 1.0
"""Seconds between two looks for nodes that have joined."""
PLACE_TIMEOUT = 20.0
"""Seconds that a node has to start a deputy; it may have to import the package first."""
STATUS_TIMEOUT = 5.0


class LookForNodes(Message, frozen=True):
    """Sent by the actor to itself: see whether nodes have joined that could take a free seat."""


class Seat:
    """A place for one deputy: an equal part of what is not leased, such as `max_concurrency`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.node: str | None = None
        """The node whose deputy has it, or is being placed."""
        self.deputy: ActorRef[Any] | None = None
        self.under_way = 0

    def __repr__(self) -> str:
        return f"<Seat {self.number} {self.node}, {self.under_way} under way>"


class Spread(Supervisor):
    """A `Supervisor` that has its requests served on the nodes of a `cluster`, each by the one with the fewest.

    `ledger` lives on this node, and every call is reserved with it before it is made: accounts, keys, receipts and
    budgets are exactly those of one process. `deputy` is a function at the top of a module, which makes a `Deputy` of
    `args` and a `SeatTerms` on each node; its market is that of this supervisor. Limits that are stated are leased to
    the nodes, and `max_concurrency` is divided among them, so that no more nodes serve than the least of these.

    If a node is lost, its seat is free for another. A request under way there goes on at another node if it had not
    left, or has an idempotency key: then it is found out there what became of its call, as by the next run of a
    program that was killed. Without a key it ends as `OutcomeUnknown`.

    A request with a function in it (`where`, `strategies`, `stream`) is refused, for it cannot travel. `ReplaceMarket`,
    `Isolate` and `Release` are refused too.
    """

    def __init__(
        self,
        market: Market,
        *,
        ledger: ActorRef[Any],
        cluster: Cluster,
        deputy: Callable[..., Deputy],
        args: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(market, ledger=ledger)
        self._ledger: ActorRef[Any] = ledger
        self._cluster = cluster
        self._deputy = deputy
        self._args = args
        self._seats: list[Seat] = []
        self._problems: dict[str, str] = {}
        """Why nodes cannot serve, by their names."""
        self._has_looked: asyncio.Event = asyncio.Event()
        self._change: asyncio.Event = asyncio.Event()
        self._is_looking = False

    def started(self) -> None:
        super().started()
        context = self.context
        self._seats = [Seat(number) for number in range(seats_of(self.market, len(self._cluster.nodes)))]
        self._owners: dict[str, ActorRef[Any]] = {}
        for name, quota in with_leased_limits(self.market).quotas.items():
            owner = partial(LeaseOwner, name, limits=quota.all_limits(), headroom=quota.headroom)
            self._owners[name] = context.spawn(owner, mailbox=LEDGER_MAILBOX)
        context.ref.tell(LookForNodes())
        context.timers.every(LOOK_EVERY, LookForNodes())

    async def stopped(self) -> None:
        for seat in self._seats:
            if seat.deputy is not None:
                self.context.unwatch(seat.deputy)
                with suppress(RuntimeFault):
                    seat.deputy.stop()
        await super().stopped()

    @handles(LookForNodes, concurrent=2)
    async def look_for_nodes(self, message: LookForNodes) -> None:
        """Place a deputy on each node that has none, as long as there are free seats."""
        if self._is_looking:
            return
        self._is_looking = True
        try:
            taken = {seat.node for seat in self._seats}
            nodes = [node for node in self._cluster.nodes if node not in taken]
            free = [seat for seat in self._seats if seat.node is None]
            await asyncio.gather(*(self._place(seat, node) for seat, node in zip(free, nodes, strict=False)))
        finally:
            self._is_looking = False
            self._has_looked.set()

    async def _place(self, seat: Seat, node: str) -> None:
        seat.node = node
        home = SeatTerms(
            requests=self.context.ref,
            ledger=self._ledger,
            quotas=self._owners,
            seat=seat.number,
            seats=len(self._seats),
        )
        try:
            deputy: ActorRef[Any] = await self._cluster.spawn(
                self._deputy, *self._args, home, node=node, restart=Restart.TEMPORARY, timeout=PLACE_TIMEOUT
            )
            seat.deputy = deputy
        except (RuntimeFault, RemoteCrash, RemoteRefusal, ValueError) as error:
            if self._problems.get(node) != str(error):
                self.context.log.warning("node {} does not serve: {}", node, error)
            self._problems[node] = str(error)
            return
        finally:
            if seat.deputy is None:
                seat.node = None
        self._problems.pop(node, None)
        self.context.watch(deputy)
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    @handles(Terminated)
    def replace_service(self, message: Terminated) -> None:
        """Free the seat of a deputy that has ended, or replace a service."""
        for seat in self._seats:
            if seat.deputy is not None and seat.deputy == message.ref:
                self.context.log.warning("node {} serves no more: {}", seat.node, message.exit.error or "it has ended")
                self._free(seat)
                self.context.ref.tell(LookForNodes())
                return
        super().replace_service(message)

    def _free(self, seat: Seat) -> None:
        seat.node, seat.deputy, seat.under_way = None, None, 0

    @handles(SmartRequest, concurrent=MAX_REQUESTS, inline=True)
    async def serve_request(self, message: SmartRequest) -> SmartResult:
        """Have one request served on a node; on another one if that is lost, as far as this is safe."""
        now = self.context.now
        until = now() + message.timeout + ANSWER_GRACE
        if message.request_id is None:
            message = msgspec.structs.replace(message, request_id=own_id(self.context.random.getrandbits(128)))
        while True:
            seat, deputy = await self._next_seat(until)
            seat.under_way += 1
            try:
                served = await self._ask(seat, deputy, message, timeout=max(0.001, until - now()))
            finally:
                if seat.deputy is deputy:
                    seat.under_way -= 1
            if served is not None:
                return self._taken(served)
            if seat.deputy is deputy and deputy.recipient.closed:
                self._free(seat)  # Before it is told that the deputy has ended.

    async def _ask(self, seat: Seat, deputy: ActorRef[Any], message: SmartRequest, *, timeout: float) -> Any:  # noqa: ASYNC109
        """Return what a node answers; None if another one may be asked. Raises a `CallFailed`."""
        try:
            return await deputy.ask(ServeAway(message), timeout=timeout)
        except NotSendable as error:
            raise Permanent(f"this request cannot be served on another node: {error}") from error
        except ActorStopped:
            return None  # It never ran there.
        except (ActorCrashed, AskTimeout) as error:
            if isinstance(error, ActorCrashed) and message.idempotency_key is not None:
                return None
            raise OutcomeUnknown(f"node {seat.node} did not say what became of the request: {error}") from error
        except RuntimeFault as error:
            raise NotAdmitted(f"node {seat.node}: {error}") from error

    async def _next_seat(self, until: float) -> tuple[Seat, ActorRef[Any]]:
        """Return the deputy with the fewest requests, once there is one. Raises `NotAdmitted`."""
        while True:
            living = [(seat, seat.deputy) for seat in self._seats if seat.deputy is not None]
            if living:
                return min(living, key=lambda one: one[0].under_way)
            try:
                async with asyncio.timeout(max(0.0, until - self.context.now())):
                    await self._change.wait()
            except TimeoutError:
                raise NotAdmitted(f"no node serves requests{self._why()}") from None

    def _why(self) -> str:
        return "".join(f"; {node}: {problem}" for node, problem in self._problems.items())

    def _taken(self, served: ServedAway) -> SmartResult:
        """Publish what has happened on the node, and return the result of a request, or raise its error."""
        for fact in served.facts:
            with suppress(msgspec.MsgspecError, KeyError):
                self.context.events.publish(fact.event())
        ahead = self.context.now() - served.now
        if served.result is not None:
            return result_by_own_clock(served.result, ahead)
        error = error_by_own_clock(failure_of(decode(served.error or b"")), ahead)
        if isinstance(error, CallFailed):
            raise error
        if isinstance(error, ActorCrashed | AskTimeout):
            raise OutcomeUnknown(f"the node did not say what became of the request: {error}") from error
        raise NotAdmitted(str(error)) from error

    @handles(GetNodes, concurrent=100)
    async def list_nodes(self, message: GetNodes) -> tuple[str, ...]:
        """Tell which nodes serve requests."""
        await self._has_looked.wait()
        nodes = tuple(seat.node for seat in self._seats if seat.deputy is not None and seat.node is not None)
        if not nodes:
            raise Permanent(f"no node can serve{self._why()}")
        return nodes

    @handles(GetStatus, concurrent=100)
    async def status(self, message: GetStatus) -> tuple[TargetStatus, ...]:
        """Tell the state of every provider, over all nodes."""
        question = GetNodeStatus(check_health=message.check_health)
        asking = [seat.deputy.ask(question, timeout=STATUS_TIMEOUT) for seat in self._seats if seat.deputy is not None]
        statuses: list[tuple[TargetStatus, ...]] = []
        for told in await asyncio.gather(*asking, return_exceptions=True):
            if not isinstance(told, BaseException):
                ahead = self.context.now() - told.now
                statuses.append(tuple(by_own_clock(one, ahead) for one in told.targets))
        return of_all_nodes(statuses) if statuses else await super().status(message)

    @handles(ReplaceMarket, concurrent=100)
    async def replace_market(self, message: ReplaceMarket) -> MarketChange:
        """Refuse: the nodes have theirs from the beginning."""
        raise Permanent("the market of several nodes cannot be replaced while they serve; start again with another")

    @handles(Isolate)
    def isolate(self, message: Isolate) -> None:
        """Refuse: providers are called on the nodes."""
        raise Permanent("a provider cannot be isolated on several nodes; stop the program instead")

    @handles(Release)
    def release(self, message: Release) -> None:
        """Refuse: providers are called on the nodes."""
        raise Permanent("a provider cannot be released on several nodes")

    def __repr__(self) -> str:
        serving = [seat for seat in self._seats if seat.deputy is not None]
        return f"<Spread over {len(serving)} nodes, {sum(seat.under_way for seat in serving)} requests under way>"
