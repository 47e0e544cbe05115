"""A node: the ordinary runtime on one machine, and its conversations with the others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from runtime.actor import Actor
from runtime.cell.answers import hand_back
from runtime.cell.cell import Cell
from runtime.cell.inbox import accept_if_room, dequeue_waiter, enqueue_waiter
from runtime.cell.watching import unwatch_all, watch
from runtime.cluster.codec import MessageCodec, WireRef, declared_types, error_to_wire, text_of
from runtime.cluster.errors import NotSendable, RemoteCrash
from runtime.cluster.frames import (
    MALFORMED,
    STALE,
    Activated,
    ActivateFrame,
    AnswerFrame,
    AskFrame,
    Batch,
    CancelFrame,
    EndedFrame,
    EndFrame,
    FailureFrame,
    FindFrame,
    HoldsFrame,
    Reply,
    SpawnFrame,
    TellFrame,
    WatchFrame,
    WireError,
    decode_batch,
    decode_frame,
    encode,
)
from runtime.cluster.hosting import Hosting
from runtime.cluster.keyed import KeyedActor
from runtime.cluster.peer import Peer
from runtime.cluster.placing import factory_named, made_of
from runtime.cluster.port import NodeLife
from runtime.cluster.remote import RemoteActor
from runtime.cluster.replies import HeldReply, RemoteAsk
from runtime.envelope import EXPIRED, SETTLED
from runtime.errors import ActorStopped, AskTimeout, RuntimeFault
from runtime.events import Event, Terminated
from runtime.handlers import handles
from runtime.messages import Message, name_of
from runtime.ref import ActorRef  # noqa: TC001 - a handler names it.
from runtime.routing.gather import ask_to_return
from runtime.routing.router import Router
from runtime.supervision import Exit, ExitReason, Restart

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from runtime.cluster.journals import Journals
    from runtime.cluster.port import Port
    from runtime.engine import Engine
    from runtime.ref import Recipient
    from runtime.system import ActorSystem

MAX_GIVEN = 10_000
"""Answers that are remembered in case that their askers have given up."""


class FrameRefused(Event, frozen=True):
    """Something came from another node that is malformed or not declared here; it was not executed."""

    sender: str
    why: str


class Gatekeeper(Actor[Any]):
    """Watches the actors that other nodes know, on their behalf."""

    def __init__(self, ended: Callable[[ActorRef[Any], Exit], None], watched: Mapping[int, ActorRef[Any]]) -> None:
        self._ended = ended
        self._watched = watched

    def started(self) -> None:
        for ref in tuple(self._watched.values()):  # Those of its life before.
            self.context.watch(ref)

    @handles(Terminated)
    def tell_nodes(self, message: Terminated) -> None:
        self._ended(message.ref, message.exit)


class Exports:
    """The actors of a node that others know: by number, and some by name too."""

    def __init__(self) -> None:
        self.refs: dict[int, ActorRef[Any]] = {}
        self.named: dict[str, ActorRef[Any]] = {}
        self.watched_by: dict[int, set[Peer]] = {}
        self._numbers: dict[ActorRef[Any], int] = {}
        self._last = 0

    def number_of(self, ref: ActorRef[Any]) -> tuple[int, bool]:
        """Return the number of an actor, and whether it is a new one."""
        number = self._numbers.get(ref)
        if number is not None:
            return number, False
        self._last += 1
        self._numbers[ref] = self._last
        self.refs[self._last] = ref
        return self._last, True

    def end(self, ref: ActorRef[Any]) -> tuple[int, set[Peer]]:
        """Forget an actor that has ended; return its number, and the nodes that watch it."""
        number = self._numbers.pop(ref, 0)
        self.refs.pop(number, None)
        for name in [name for name, one in self.named.items() if one is ref]:
            del self.named[name]
        return number, self.watched_by.pop(number, set())


class Node:
    """One life of a node, inside an entered system; `receive` is what its engine hands batches to."""

    def __init__(
        self,
        life: NodeLife,
        system: ActorSystem,
        port: Port,
        *,
        homes: Sequence[str] = (),
        journals: Journals | None = None,
    ) -> None:
        self.life = life
        self.system = system
        self.port = port
        self._exports = Exports()
        self._gatekeeper = system.spawn(
            lambda: Gatekeeper(self._ended, self._exports.refs), name="cluster", restart=Restart.PERMANENT
        )
        self._cell = cast("Cell", self._gatekeeper.recipient.home)
        self.engine: Engine = self._cell.engine
        self.codec = MessageCodec(self.export, self._meet)
        self.refused = 0
        """What came from other nodes and was not taken."""
        self.peers: dict[NodeLife, Peer] = {}
        self._sessions: dict[NodeLife, int] = {}
        self._closed_sessions: dict[NodeLife, int] = {}
        """The last session of each node that has been taken for dead."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._types: dict[type, dict[str, type]] = {}
        self._asks: dict[tuple[Peer, int], RemoteAsk | asyncio.Task[None]] = {}
        """Requests of other nodes that are under way here."""
        self._given: OrderedDict[tuple[Peer, int], Callable[[], None]] = OrderedDict()
        """What gives answers back that their askers may turn out not to have taken."""
        self._spawned: OrderedDict[tuple[Peer, int], ActorRef[Any]] = OrderedDict()
        """Actors that their spawners may turn out not to want."""
        self._owned: dict[Peer, set[ActorRef[Any]]] = {}
        """Actors that end if their spawners are lost, which then start them elsewhere."""
        self._does: dict[type, Callable[[Peer, Any], None]] = {
            TellFrame: self._tell,
            CancelFrame: self._cancel,
            AnswerFrame: self._answer,
            FailureFrame: self._answer,
            WatchFrame: self._watch,
            EndedFrame: self._end_of,
            EndFrame: self._end,
            SpawnFrame: self._spawn,
            FindFrame: self._find,
        }
        self.is_closed = False
        self.hosting = Hosting(self, homes, journals)
        self._does[ActivateFrame] = self.hosting.answer_activate
        self._does[HoldsFrame] = self.hosting.answer_holds

    def __repr__(self) -> str:
        return f"<Node {self.life.name} of {self.life.epoch}, {len(self.peers)} peers, {self.refused} frames refused>"

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that ends with the node."""
        task = self.engine.create_task(coroutine, name=f"node {self.life.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End every conversation; what waits for another node fails, and no task is left."""
        self.is_closed = True
        unwatch_all(self._cell)
        for peer in tuple(self.peers.values()):
            peer.lose("this node has left the cluster")
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Names of actors.

    def peer(self, life: NodeLife) -> Peer:
        """Return the conversation with a life of another node; a new one if there is none."""
        peer = self.peers.get(life)
        if peer is None:
            session = self._sessions[life] = self._sessions.get(life, -1) + 1
            peer = self.peers[life] = Peer(self, life, session)
        return peer

    def forget(self, peer: Peer) -> None:
        """Drop a conversation that is over."""
        if self.peers.get(peer.life) is peer:
            del self.peers[peer.life]
        if peer.their_session >= 0:
            self._closed_sessions[peer.life] = peer.their_session
        for watchers in self._exports.watched_by.values():
            watchers.discard(peer)
        for ref in self._owned.pop(peer, ()):
            ref.kill()

    def export(self, ref: ActorRef[Any]) -> WireRef:
        """Return how other nodes name an actor."""
        if isinstance(ref.recipient, RemoteActor):
            return ref.recipient.name
        if isinstance(ref.recipient, KeyedActor):
            return WireRef("", 0, 0, ref.path, ref.recipient.name)
        number, is_new = self._exports.number_of(ref)
        home = ref.recipient.home
        if is_new and isinstance(home, Cell):
            watch(self._cell, home)
        return WireRef(self.life.name, self.life.epoch, number, ref.path)

    def _meet(self, name: WireRef) -> ActorRef[Any]:
        if name.keyed is not None:
            return self.hosting.ref(name.keyed)
        life = NodeLife(name.node, name.epoch)
        if life == self.life:
            ref = self._exports.refs.get(name.number)
            return ref if ref is not None else self._gone(name)
        peer = self.peer(life)
        actor = peer.actors.get(name.number)
        if actor is None:
            actor = peer.actors[name.number] = RemoteActor(peer, name)
        return actor.ref

    def _gone(self, name: WireRef) -> ActorRef[Any]:
        """Return a ref of an actor of this node that has ended."""
        actor = RemoteActor(self.peer(self.life), name)
        actor.exit = Exit(ExitReason.STOPPED)
        return actor.ref

    def _ended(self, ref: ActorRef[Any], exit: Exit) -> None:  # noqa: A002 - the field's word.
        number, watchers = self._exports.end(ref)
        for owned in self._owned.values():
            owned.discard(ref)
        error = None if exit.error is None else error_to_wire(exit.error)
        for peer in watchers:
            peer.post(EndedFrame(number, exit.reason.value, error))

    # What comes.

    async def receive(self, data: bytes) -> bytes:
        """Take a batch of another node, once and in its order, and return the reply."""
        try:
            batch = decode_batch(data)
        except msgspec.MsgspecError as error:
            self._refuse("?", f"a malformed batch: {error}")
            return encode(Reply(MALFORMED))
        if self.is_closed or batch.epoch != self.life.epoch:
            return encode(Reply(STALE))
        if batch.session <= self._closed_sessions.get(batch.sender, -1):
            return encode(Reply(STALE))  # It has been taken for dead, which it has to know.
        known = self.peers.get(batch.sender)
        if known is not None and batch.session < known.their_session:
            return encode(Reply(STALE))  # It comes late, of a conversation that is over.
        for life, peer in tuple(self.peers.items()):
            if life.name == batch.sender.name and life.epoch < batch.sender.epoch:
                peer.lose("it has been started again")
        peer = self.peer(batch.sender)
        if peer.their_session != batch.session:
            if peer.their_session >= 0:
                peer.lose("it has taken this node for dead")
                peer = self.peer(batch.sender)
            peer.their_session = batch.session
        return await asyncio.shield(self._take(peer, batch))

    def _take(self, peer: Peer, batch: Batch) -> asyncio.Future[bytes]:
        for number in [one for one in peer.replies if one < batch.replied]:
            del peer.replies[number]
        reply = peer.replies.get(batch.number)
        if reply is None:
            reply = peer.replies[batch.number] = self.engine.loop.create_future()
        for due in peer.incoming.take(batch.number, batch, replied=batch.replied):
            held = HeldReply(peer.replies[due.number], holds=due.holds)
            try:
                for frame in due.frames:
                    self.handle(peer, frame, held)
                self.engine.pump()
            finally:
                held.seal(self.engine)
        return reply

    def handle(self, peer: Peer, data: bytes, held: HeldReply | None) -> None:
        """Do what a frame says; one that is malformed or not declared is refused, and harms nothing."""
        try:
            frame: Any = decode_frame(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._refuse(peer.life.name, f"a malformed frame: {error}")
            return
        try:
            if isinstance(frame, AskFrame):
                self._ask(peer, frame, held)
            else:
                self._does[type(frame)](peer, frame)
        except Exception as error:  # noqa: BLE001 - what one frame brings about must not keep those after it.
            text = text_of(error)
            self._refuse(peer.life.name, f"a {type(frame).__name__}: {text}")
            if isinstance(frame, AskFrame):
                self._asks.pop((peer, frame.number), None)
                answer(peer, held, FailureFrame(frame.number, WireError("error", type(error).__name__, text)))

    def _end(self, peer: Peer, frame: EndFrame) -> None:
        ref = self._exports.refs.get(frame.to)
        if ref is not None:
            (ref.kill if frame.kill else ref.stop)()

    def _find(self, peer: Peer, frame: FindFrame) -> None:
        peer.post(AnswerFrame(frame.number, self.codec.encode(self._exports.named.get(frame.name))), alone=True)

    def _message(self, to: int, kind: str, body: bytes, peer: Peer) -> tuple[ActorRef[Any], Any] | WireError:
        """Return the actor and the message; or why it cannot be taken."""
        ref = self._exports.refs.get(to)
        if ref is None or ref.recipient.closed:
            return WireError("stopped", kind, "")
        home = ref.recipient.home
        if not isinstance(home, Cell):
            return WireError("stopped", kind, "")
        of = self._type_of(ref.recipient, kind)
        if of is None:
            self._refuse(peer.life.name, f"{ref.path} takes no {kind}")
            handled = sorted({one.__name__ for one in handled_by(ref.recipient)})
            return WireError("unhandled", kind, "", encode(handled))
        try:
            return ref, self.codec.decode(body, of)
        except Exception as error:  # noqa: BLE001 - of the type's own checks, or of what it cannot be decoded into.
            text = text_of(error)
            self._refuse(peer.life.name, f"a malformed {kind} for {ref.path}: {text}")
            return WireError("error", "msgspec.ValidationError", f"{kind} cannot be read at {self.life.name}: {text}")

    def _type_of(self, recipient: Recipient, kind: str) -> type | None:
        """Return the type of this name that an actor takes, or one of those behind a router; None if none does."""
        if isinstance(recipient, Router):
            found = [self._type_of(one, kind) for one in recipient.living()]
            return next((of for of in found if of is not None), None) if found else self._declared(Message, kind)
        # An actor of another node, to which a router leads, is asked what it takes there: here any message may pass.
        return self._declared(type(recipient.actor) if isinstance(recipient, Cell) else Message, kind)

    def _declared(self, by: type[Actor[Any] | Message], kind: str) -> type | None:
        types = self._types.get(by)
        if types is None or kind not in types:
            handled = handled_types(by) if issubclass(by, Actor) else [by]
            types = self._types[by] = declared_types(handled)
        return types.get(kind)

    def _tell(self, peer: Peer, frame: TellFrame) -> None:
        found = self._message(frame.to, frame.kind, frame.body, peer)
        if isinstance(found, WireError):
            if found.family == "stopped" and frame.to in self.hosting.numbers:
                self.create_task(self._tell_successor(peer, frame))
            return
        ref, message = found
        try:
            ref.tell(message)
        except RuntimeFault as error:
            self._refuse(peer.life.name, str(error))

    async def _tell_successor(self, peer: Peer, frame: TellFrame) -> None:
        """Tell a keyed actor by the number of an activation of it that has ended meanwhile."""
        active = await self.hosting.successor(frame.to)
        if isinstance(active, Activated):
            self._tell(peer, TellFrame(self.export(active.ref).number, frame.kind, frame.body))
        else:
            self._refuse(peer.life.name, f"{frame.kind} for {self.hosting.numbers[frame.to].path}: {active}")

    def _ask(self, peer: Peer, frame: AskFrame, held: HeldReply | None) -> None:
        found = self._message(frame.to, frame.kind, frame.body, peer)
        if isinstance(found, WireError):
            answer(peer, held, FailureFrame(frame.number, found))
            return
        ref, message = found
        home = ref.recipient
        if isinstance(home, Router) and frame.awaits:
            try:
                # At once, as a near router does, so that what is told next cannot overtake it.
                home = home.destination(message)
            except Exception as error:  # noqa: BLE001 - of the user's routing, or as no routee is left: it is the asker's.
                answer(peer, held, FailureFrame(frame.number, error_to_wire(error)))
                return
        if held is not None:
            held.waits_for(frame.number)
        if not isinstance(home, Cell) or not frame.awaits:
            task = self.create_task(self._in_task(peer, held, frame, home, message))
            self._asks[peer, frame.number] = task
            return
        now = self.engine.time()
        ask = RemoteAsk(message, now + (frame.left or 0.0), partial(self._settled, peer, held, frame.number, home))
        self._asks[peer, frame.number] = ask
        if not accept_if_room(home, ask):
            if home.closed:
                ask.fail(ActorStopped(home.path, name_of(message)))
                return
            enqueue_waiter(home, ask)
        self.engine.deadlines.add(ask)

    async def _in_task(self, peer: Peer, held: HeldReply | None, frame: AskFrame, to: Recipient, message: Any) -> None:
        """Ask an actor of another node for an asker of a third one, or wait for room."""
        try:
            if frame.awaits:
                value, give_back = await ask_to_return(to, message, frame.left or 0.001)
                body = self.codec.encode(value)
                self._may_come_back(peer, frame.number, give_back)
            else:
                await to.send(message, frame.left)
                body = encode(None)
            told: AnswerFrame | FailureFrame = AnswerFrame(frame.number, body)
        except Exception as error:  # noqa: BLE001 - it is the asker's.
            told = FailureFrame(frame.number, error_to_wire(error))
        finally:
            self._asks.pop((peer, frame.number), None)
        answer(peer, held, told)

    def _settled(self, peer: Peer, held: HeldReply | None, number: int, cell: Cell, ask: RemoteAsk) -> None:
        self.engine.deadlines.discard(ask)
        dequeue_waiter(cell, ask)
        self._asks.pop((peer, number), None)
        if ask.progress is not SETTLED:
            if ask.progress is EXPIRED:
                error = AskTimeout(cell.path, name_of(ask.message), timeout=0.0)
                answer(peer, held, FailureFrame(number, error_to_wire(error)))
            return
        if ask.error is not None:
            answer(peer, held, FailureFrame(number, error_to_wire(ask.error)))
            return
        try:
            body = self.codec.encode(ask.value)
        except NotSendable as error:
            answer(peer, held, FailureFrame(number, error_to_wire(error)))
            return
        giver: Cell | None = ask.answerer  # After a reroute it is not the actor that was asked.
        if giver is not None and type(giver.actor).unclaimed is not Actor.unclaimed:
            self._may_come_back(peer, number, partial(hand_back, giver, ask.message, ask.value))
        answer(peer, held, AnswerFrame(number, body))

    def _may_come_back(self, peer: Peer, number: int, give_back: Callable[[], None]) -> None:
        self._given[peer, number] = give_back
        if len(self._given) > MAX_GIVEN:
            self._given.popitem(last=False)

    def _cancel(self, peer: Peer, frame: CancelFrame) -> None:
        ask = self._asks.pop((peer, frame.number), None)
        spawned = self._spawned.pop((peer, frame.number), None)
        if ask is not None:
            ask.cancel()
        elif spawned is not None:
            spawned.stop()  # Its spawner has given up, and could not name it.
        elif (give_back := self._given.pop((peer, frame.number), None)) is not None:
            give_back()

    def _answer(self, peer: Peer, frame: AnswerFrame | FailureFrame) -> None:
        pending = peer.pending.pop(frame.number, None)
        if isinstance(frame, FailureFrame):
            if pending is not None:
                pending.failed(frame.error)
        elif pending is None or not pending.answered(partial(self.codec.decode, frame.body)):
            peer.post(CancelFrame(frame.number))  # Its asker has given up: it goes back to the actor that gave it.

    def _watch(self, peer: Peer, frame: WatchFrame) -> None:
        if frame.to in self._exports.refs:
            self._exports.watched_by.setdefault(frame.to, set()).add(peer)
        else:
            peer.post(EndedFrame(frame.to, ExitReason.STOPPED.value))

    def _end_of(self, peer: Peer, frame: EndedFrame) -> None:
        error = None if frame.error is None else RemoteCrash(frame.error.kind, frame.error.text)
        exit_ = Exit(ExitReason(frame.reason), error)
        actor = peer.actors.pop(frame.number, None)
        if actor is not None:
            actor.ended(exit_)
            peer.changed()

    def _spawn(self, peer: Peer, frame: SpawnFrame) -> None:
        try:
            ref = self.spawn(factory_named(frame.factory), frame.args, name=frame.name, restart=Restart(frame.restart))
            told: AnswerFrame | FailureFrame = AnswerFrame(frame.number, self.codec.encode(ref))
            self._spawned[peer, frame.number] = ref
            if frame.is_owned:
                self._owned.setdefault(peer, set()).add(ref)
            if len(self._spawned) > MAX_GIVEN:
                self._spawned.popitem(last=False)
        except Exception as error:  # noqa: BLE001 - of the factory, or of what names it: it is the spawner's.
            told = FailureFrame(frame.number, error_to_wire(error))
        peer.post(told, alone=True)

    def spawn(self, factory: Callable[..., Any], args: bytes, *, name: str | None, restart: Restart) -> ActorRef[Any]:
        """Start an actor here; its arguments are decoded into the types that the factory declares."""
        given = self.codec.decode(args, tuple[list[Any], dict[str, Any]])
        ref = self.system.spawn(partial(made_of, factory, *given), name=name, restart=restart)
        self.name(ref, name)
        return ref

    def name(self, ref: ActorRef[Any], name: str | None) -> None:
        """Let other nodes know an actor, and find it under a name if it has one."""
        if name is not None:
            self._exports.named[name] = ref
        self.export(ref)

    def named(self, name: str) -> ActorRef[Any] | None:
        """Return the actor of this node that was spawned under a name."""
        return self._exports.named.get(name)

    def _refuse(self, sender: str, why: str) -> None:
        self.refused += 1
        self._cell.log.warning("from node {}: refused {}", sender, why)
        self.engine.events.publish(FrameRefused(sender, why))


def handled_types(of: type[Actor[Any]]) -> list[type]:
    """Return the types of the messages that an actor of this class takes."""
    return [one for one, handler in of.handlers.items() if handler is not None]


def handled_by(recipient: Recipient) -> Iterator[type]:
    """Yield the types of the messages that an actor takes, or those behind a router."""
    if isinstance(recipient, Router):
        for one in recipient.living():
            yield from handled_by(one)
    elif isinstance(recipient, Cell):
        yield from handled_types(type(recipient.actor))


def answer(peer: Peer, held: HeldReply | None, frame: AnswerFrame | FailureFrame) -> None:
    """Tell the asker, with the reply to its batch if that has not left."""
    if held is None or not held.take(frame.number, encode(frame)):
        peer.post(frame, alone=True)
