"""One conversation with another node: frames leave in batches, each once and in order, until the node is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from runtime.cluster.errors import NodeLost
from runtime.cluster.frames import STALE, TAKEN, Batch, Reply, decode_reply, encode
from runtime.cluster.port import Unreachable
from runtime.cluster.remote import MAX_WAITING
from runtime.cluster.stream_of_batches import MAX_FRAMES, Incoming, Outgoing, Posted
from runtime.supervision import Exit, ExitReason

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from runtime.cluster.codec import MessageCodec
    from runtime.cluster.port import NodeLife, Port
    from runtime.cluster.remote import PendingAnswer, RemoteActor
    from runtime.engine import Engine

FLUSH_AFTER = 0.001
"""Seconds for which a frame that may wait does so, for others to travel with it."""
AGAIN_AFTER = 0.05
"""Seconds before a batch whose reply did not come is sent again; the receiver takes it once."""


class Home(Protocol):
    """What a conversation needs of the node that has it."""

    life: NodeLife
    engine: Engine
    codec: MessageCodec
    port: Port
    is_closed: bool

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]: ...
    def forget(self, peer: Peer) -> None: ...
    def handle(self, peer: Peer, data: bytes, held: None) -> None: ...


class Peer:
    """A life of another node, as this node knows it."""

    def __init__(self, node: Home, life: NodeLife, session: int) -> None:
        self.node = node
        self.life = life
        self.session = session
        self.engine: Engine = node.engine
        self.codec: MessageCodec = node.codec
        self.outgoing = Outgoing()
        self.incoming: Incoming[Batch] = Incoming()
        self.their_session = -1
        self.replies: dict[int, asyncio.Future[bytes]] = {}
        """The replies to batches of this node, until it has them."""
        self.pending: dict[int, PendingAnswer] = {}
        self.actors: dict[int, RemoteActor] = {}
        """The actors there that this node has met."""
        self.why_lost: str | None = "this node has left the cluster" if node.is_closed else None
        self._numbers = 0
        self._flush: asyncio.TimerHandle | None = None
        self._changes: list[asyncio.Future[None]] = []
        if not node.is_closed:
            self.create_task(self._watch())

    def __repr__(self) -> str:
        return f"<Peer {self.life.name} {self.why_lost or f'{len(self.outgoing.under_way)} batches under way'}>"

    @property
    def is_full(self) -> bool:
        """Tell whether so much waits for the node that no more is taken."""
        return len(self.outgoing.waiting) >= MAX_WAITING

    def new_number(self) -> int:
        """Return a number for a request, which no other request to this node has."""
        self._numbers += 1
        return self._numbers

    def carried(self) -> dict[str, Any]:
        """Return the context variables that travel with a request: those whose values are text."""
        if self.engine.propagation is None:
            return {}
        return {one.name: value for one, value in self.engine.propagation.capture() if isinstance(value, str)}

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that ends with the node."""
        return self.node.create_task(coroutine)

    # What leaves.

    def post(self, frame: Any, lost: Callable[[bool], None] | None = None, *, alone: bool = False) -> None:
        """Send a frame soon; one that may leave alone leaves at once if nothing waits before it."""
        if self.why_lost is not None:
            if lost is not None:
                lost(False)  # noqa: FBT003 - it has not left.
            return
        outgoing = self.outgoing
        outgoing.waiting.append(Posted(encode(frame), lost, alone))
        if outgoing.may_leave and ((alone and len(outgoing.waiting) == 1) or len(outgoing.waiting) >= MAX_FRAMES):
            self._send()
        elif self._flush is None:
            self._flush = self.engine.loop.call_later(FLUSH_AFTER, self._flush_now, context=self.engine.context)

    def _flush_now(self) -> None:
        self._flush = None
        self._send()

    def _send(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        while self.outgoing.may_leave and self.why_lost is None:
            number, frames = self.outgoing.next_batch()
            batch = Batch(
                sender=self.node.life,
                epoch=self.life.epoch,
                session=self.session,
                number=number,
                replied=self.outgoing.replied,
                holds=any(one.alone for one in frames),
                frames=[one.data for one in frames],
            )
            self.create_task(self._transmit(number, encode(batch)))

    async def _transmit(self, number: int, data: bytes) -> None:
        """Send a batch until its reply has come, or the node is lost."""
        reply = None
        while reply is None and self.why_lost is None:
            try:
                reply = decode_reply(await self.node.port.send_batch(self.life, data))
            except Unreachable:
                await asyncio.sleep(AGAIN_AFTER)
            except NodeLost as error:
                self.lose(error.why)
            except Exception as error:  # noqa: BLE001 - of the port, or a reply that is none; the node cannot be used.
                self.lose(f"it cannot be reached: {error}")
        if reply is None or self.why_lost is not None:
            return
        if reply.status != TAKEN:
            self.lose("it has been started again, or has taken this node for dead")
            return
        self.outgoing.under_way.pop(number, None)
        for frame in reply.frames:
            self.node.handle(self, frame, None)
        self._send()

    # The end.

    async def _watch(self) -> None:
        try:
            why = await self.node.port.watch(self.life)
        except Exception as error:  # noqa: BLE001 - of the port: what cannot be watched counts as lost.
            why = f"it cannot be watched: {error}"
        self.lose(why)

    def lose(self, why: str) -> None:
        """Take the node for dead: what had not left never ran, of what had left nothing is known."""
        if self.why_lost is not None:
            return
        self.why_lost = why
        if self._flush is not None:
            self._flush.cancel()
        self.node.forget(self)
        self.outgoing.lose_all()
        pending, self.pending = self.pending, {}
        for one in pending.values():
            one.lost(True)  # noqa: FBT003 - it had left.
        for actor in tuple(self.actors.values()):
            actor.ended(Exit(ExitReason.CRASHED, NodeLost(self.life.name, why)))
        for reply in self.replies.values():
            if not reply.done():
                reply.set_result(encode(Reply(STALE)))
        self.changed()

    async def change(self) -> None:
        """Wait until an actor of this node ends, or the node does."""
        change: asyncio.Future[None] = self.engine.loop.create_future()
        self._changes.append(change)
        await change

    def changed(self) -> None:
        """Wake those that wait for a change."""
        changes, self._changes = self._changes, []
        for one in changes:
            if not one.done():
                one.set_result(None)
