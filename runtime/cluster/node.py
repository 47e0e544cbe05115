"""A node: the ordinary runtime on one machine, and its conversations with the others."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import msgspec

from runtime.actor import Actor
from runtime.cell.answers import hand_back
from runtime.cell.cell import Cell
from runtime.cell.inbox import accept_if_room, enqueue_waiter
from runtime.cell.watching import watch
from runtime.cluster.codec import MessageCodec, WireRef, declared_types, error_to_wire
from runtime.cluster.errors import NotSendable, RemoteCrash
from runtime.cluster.frames import (
    MALFORMED,
    STALE,
    TAKEN,
    AnswerFrame,
    AskFrame,
    Batch,
    CancelFrame,
    EndedFrame,
    EndFrame,
    FailureFrame,
    FindFrame,
    Reply,
    SpawnFrame,
    TellFrame,
    WatchFrame,
    WireError,
    decode_batch,
    decode_frame,
    encode,
)
from runtime.cluster.peer import Peer
from runtime.cluster.port import NodeLife
from runtime.cluster.remote import RemoteActor
from runtime.envelope import EXPIRED, SETTLED, Ask
from runtime.errors import ActorStopped, AskTimeout, RuntimeFault
from runtime.events import Event, Terminated
from runtime.handlers import handles
from runtime.messages import name_of
from runtime.ref import ActorRef
from runtime.supervision import Exit, ExitReason, Restart

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from runtime.cluster.port import Port
    from runtime.engine import Engine
    from runtime.system import ActorSystem

HOLD_REPLY = 0.02
"""Seconds for which the reply to a batch waits for the answers to its requests; later ones travel by themselves."""
MAX_GIVEN = 10_000
"""Answers that are remembered in case that their askers have given up."""


class FrameRefused(Event, frozen=True):
    """Something came from another node that is malformed or not declared here; it was not executed."""

    sender: str
    why: str


class Gatekeeper(Actor[Any]):
    """Watches the actors that other nodes know, on their behalf."""

    def __init__(self, ended: Callable[[ActorRef[Any], Exit], None]) -> None:
        self._ended = ended

    @handles(Terminated)
    def tell_nodes(self, message: Terminated) -> None:
        self._ended(message.ref, message.exit)


class Node:
    """One life of a node, inside an entered system; `receive` is what its engine hands batches to."""

    def __init__(self, life: NodeLife, system: ActorSystem, port: Port) -> None:
        self.life = life
        self.system = system
        self.port = port
        self._gatekeeper = system.spawn(lambda: Gatekeeper(self._ended), name="cluster", restart=Restart.PERMANENT)
        self._cell = cast("Cell", self._gatekeeper.recipient.home)
        self.engine: Engine = self._cell.engine
        self.codec = MessageCodec(self._export, self._meet)
        self.refused = 0
        """What came from other nodes and was not taken."""
        self.peers: dict[NodeLife, Peer] = {}
        self._sessions: dict[NodeLife, int] = {}
        self._closed_sessions: dict[NodeLife, int] = {}
        """The last session of each node that has been taken for dead."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._exported: dict[int, ActorRef[Any]] = {}
        self._numbers: dict[ActorRef[Any], int] = {}
        self._last_number = 0
        self._watched_by: dict[int, set[Peer]] = {}
        self._named: dict[str, ActorRef[Any]] = {}
        self._types: dict[type, dict[str, type]] = {}
        self._asks: dict[tuple[Peer, int], RemoteAsk | asyncio.Task[None]] = {}
        """Requests of other nodes that are under way here."""
        self._given: OrderedDict[tuple[Peer, int], tuple[Cell, Any, Any]] = OrderedDict()
        """Answers that their askers may turn out not to have taken."""
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
        for watchers in self._watched_by.values():
            watchers.discard(peer)

    def _export(self, ref: ActorRef[Any]) -> WireRef:
        if isinstance(ref.recipient, RemoteActor):
            return ref.recipient.name
        number = self._numbers.get(ref)
        if number is None:
            number = self._last_number = self._last_number + 1
            self._numbers[ref] = number
            self._exported[number] = ref
            home = ref.recipient.home
            if isinstance(home, Cell):
                watch(self._cell, home)
        return WireRef(self.life.name, self.life.epoch, number, ref.path)

    def _meet(self, name: WireRef) -> ActorRef[Any]:
        life = NodeLife(name.node, name.epoch)
        if life == self.life:
            ref = self._exported.get(name.number)
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
        number = self._numbers.pop(ref, None)
        if number is None:
            return
        del self._exported[number]
        error = None if exit.error is None else error_to_wire(exit.error)
        for peer in self._watched_by.pop(number, ()):
            peer.post(EndedFrame(number, exit.reason.value, error))
        for name in [name for name, one in self._named.items() if one is ref]:
            del self._named[name]

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
            for frame in due.frames:
                self.handle(peer, frame, held)
            self.engine.pump()
            held.seal(self.engine)
        return reply

    def handle(self, peer: Peer, data: bytes, held: HeldReply | None) -> None:
        """Do what a frame says; one that is malformed or not declared is refused, and harms nothing."""
        try:
            frame: Any = decode_frame(data)
        except msgspec.MsgspecError as error:
            self._refuse(peer.life.name, f"a malformed frame: {error}")
            return
        if isinstance(frame, AskFrame):
            self._ask(peer, frame, held)
        else:
            self._does[type(frame)](peer, frame)

    def _end(self, peer: Peer, frame: EndFrame) -> None:
        ref = self._exported.get(frame.to)
        if ref is not None:
            (ref.kill if frame.kill else ref.stop)()

    def _find(self, peer: Peer, frame: FindFrame) -> None:
        peer.post(AnswerFrame(frame.number, self.codec.encode(self._named.get(frame.name))), alone=True)

    def _message(self, to: int, kind: str, body: bytes, peer: Peer) -> tuple[ActorRef[Any], Any] | WireError:
        """Return the actor and the message; or why it cannot be taken."""
        ref = self._exported.get(to)
        if ref is None or ref.recipient.closed:
            return WireError("stopped", kind, "")
        home = ref.recipient.home
        if not isinstance(home, Cell):
            return WireError("stopped", kind, "")
        of = self._type_of(home, kind)
        if of is None:
            self._refuse(peer.life.name, f"{ref.path} takes no {kind}")
            handled = sorted(one.__name__ for one, handler in home.actor.handlers.items() if handler is not None)
            return WireError("unhandled", kind, "", encode(handled))
        try:
            return ref, self.codec.decode(body, of)
        except (msgspec.MsgspecError, RuntimeFault) as error:
            self._refuse(peer.life.name, f"a malformed {kind} for {ref.path}: {error}")
            return WireError("error", "msgspec.ValidationError", f"{kind} cannot be read at {self.life.name}: {error}")

    def _type_of(self, cell: Cell, kind: str) -> type | None:
        of = type(cell.actor)
        types = self._types.get(of)
        if types is None or kind not in types:
            types = self._types[of] = declared_types(one for one, found in of.handlers.items() if found is not None)
        return types.get(kind)

    def _tell(self, peer: Peer, frame: TellFrame) -> None:
        found = self._message(frame.to, frame.kind, frame.body, peer)
        if isinstance(found, WireError):
            return
        ref, message = found
        try:
            ref.tell(message)
        except RuntimeFault as error:
            self._refuse(peer.life.name, str(error))

    def _ask(self, peer: Peer, frame: AskFrame, held: HeldReply | None) -> None:
        found = self._message(frame.to, frame.kind, frame.body, peer)
        if isinstance(found, WireError):
            answer(peer, held, FailureFrame(frame.number, found))
            return
        ref, message = found
        home = ref.recipient
        if held is not None:
            held.waits_for(frame.number)
        if not isinstance(home, Cell) or not frame.awaits:
            task = self.create_task(self._in_task(peer, held, frame, ref, message))
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

    async def _in_task(
        self, peer: Peer, held: HeldReply | None, frame: AskFrame, ref: ActorRef[Any], message: Any
    ) -> None:
        """Ask what is no plain actor, such as a router, or wait for room."""
        try:
            if frame.awaits:
                body = self.codec.encode(await ref.ask(message, timeout=frame.left or 0.001))
            else:
                await ref.send(message, timeout=frame.left)
                body = encode(None)
            told: AnswerFrame | FailureFrame = AnswerFrame(frame.number, body)
        except Exception as error:  # noqa: BLE001 - it is the asker's.
            told = FailureFrame(frame.number, error_to_wire(error))
        finally:
            self._asks.pop((peer, frame.number), None)
        answer(peer, held, told)

    def _settled(self, peer: Peer, held: HeldReply | None, number: int, cell: Cell, ask: RemoteAsk) -> None:
        self.engine.deadlines.discard(ask)
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
        if type(cell.actor).unclaimed is not Actor.unclaimed:
            self._given[peer, number] = (cell, ask.message, ask.value)
            if len(self._given) > MAX_GIVEN:
                self._given.popitem(last=False)
        answer(peer, held, AnswerFrame(number, body))

    def _cancel(self, peer: Peer, frame: CancelFrame) -> None:
        ask = self._asks.pop((peer, frame.number), None)
        if ask is not None:
            ask.cancel()
        elif (given := self._given.pop((peer, frame.number), None)) is not None:
            cell, request, value = given
            hand_back(cell, request, value)

    def _answer(self, peer: Peer, frame: AnswerFrame | FailureFrame) -> None:
        pending = peer.pending.pop(frame.number, None)
        if isinstance(frame, FailureFrame):
            if pending is not None:
                pending.failed(frame.error)
        elif pending is None or not pending.answered(partial(self.codec.decode, frame.body)):
            peer.post(CancelFrame(frame.number))  # Its asker has given up: it goes back to the actor that gave it.

    def _watch(self, peer: Peer, frame: WatchFrame) -> None:
        if frame.to in self._exported:
            self._watched_by.setdefault(frame.to, set()).add(peer)
        else:
            peer.post(EndedFrame(frame.to, ExitReason.STOPPED.value))

    def _end_of(self, peer: Peer, frame: EndedFrame) -> None:
        actor = peer.actors.pop(frame.number, None)
        if actor is not None:
            error = None if frame.error is None else RemoteCrash(frame.error.kind, frame.error.text)
            actor.ended(Exit(ExitReason(frame.reason), error))
            peer.changed()

    def _spawn(self, peer: Peer, frame: SpawnFrame) -> None:
        try:
            ref = self.spawn(factory_named(frame.factory), frame.args, name=frame.name, restart=Restart(frame.restart))
            told: AnswerFrame | FailureFrame = AnswerFrame(frame.number, self.codec.encode(ref))
        except Exception as error:  # noqa: BLE001 - of the factory, or of what names it: it is the spawner's.
            told = FailureFrame(frame.number, error_to_wire(error))
        peer.post(told, alone=True)

    def spawn(self, factory: Callable[..., Any], args: bytes, *, name: str | None, restart: Restart) -> ActorRef[Any]:
        """Start an actor here; its arguments are decoded into the types that the factory declares."""
        given = self.codec.decode(args, tuple[list[Any], dict[str, Any]])
        ref = self.system.spawn(partial(made_of, factory, *given), name=name, restart=restart)
        if name is not None:
            self._named[name] = ref
        self._export(ref)
        return ref

    def named(self, name: str) -> ActorRef[Any] | None:
        """Return the actor of this node that was spawned under a name."""
        return self._named.get(name)

    def _refuse(self, sender: str, why: str) -> None:
        self.refused += 1
        self._cell.log.warning("from node {}: refused {}", sender, why)
        self.engine.events.publish(FrameRefused(sender, why))


class RemoteAsk(Ask):
    """A request of another node: what becomes of it travels back."""

    __slots__ = ("settled",)

    def __init__(self, message: Any, deadline: float, settled: Callable[[RemoteAsk], None]) -> None:
        super().__init__(message, deadline)
        self.settled = settled

    def expire(self) -> None:
        super().expire()
        self.settled(self)

    def cancel(self) -> bool:
        is_open = super().cancel()
        self.settled(self)
        return is_open

    def _wake(self) -> None:
        super()._wake()
        self.settled(self)


class HeldReply:
    """The reply to a batch, which waits a moment for the answers to the requests in it."""

    def __init__(self, reply: asyncio.Future[bytes], *, holds: bool) -> None:
        self._reply = reply
        self._holds = holds
        self._frames: list[bytes] = []
        self._open: set[int] = set()
        self._sealed = False
        self._timer: asyncio.TimerHandle | None = None

    def waits_for(self, number: int) -> None:
        """Take note of a request whose answer may travel with the reply."""
        if self._holds:
            self._open.add(number)

    def seal(self, engine: Engine) -> None:
        """Take no more requests: reply as soon as those that there are have their answers, or after a moment."""
        self._sealed = True
        if self._open:
            self._timer = engine.loop.call_later(HOLD_REPLY, self._leave)
        else:
            self._leave()

    def take(self, number: int, frame: bytes) -> bool:
        """Let an answer travel with the reply; False if that has left, or does not wait for it."""
        if number not in self._open:
            return False
        self._open.discard(number)
        self._frames.append(frame)
        if self._sealed and not self._open:
            self._leave()
        return True

    def _leave(self) -> None:
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._reply.done():
            self._reply.set_result(encode(Reply(TAKEN, self._frames)))


def answer(peer: Peer, held: HeldReply | None, frame: AnswerFrame | FailureFrame) -> None:
    """Tell the asker, with the reply to its batch if that has not left."""
    if held is None or not held.take(frame.number, encode(frame)):
        peer.post(frame, alone=True)


def factory_name(factory: Any) -> str:
    """Return the name under which another node can import a factory. Raises `NotSendable`.

    >>> factory_name(Gatekeeper)
    'runtime.cluster.node:Gatekeeper'
    >>> factory_name(lambda: None)
    Traceback (most recent call last):
    runtime.cluster.errors.NotSendable: a lambda cannot be placed on another node, which has to import it; define ...
    """
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if not callable(factory) or not module or "<" in name:
        what = "a lambda" if "<lambda>" in name else f"{factory!r:.100}"
        raise NotSendable(
            f"{what} cannot be placed on another node, which has to import it; define a class or a function at the "
            "top of a module"
        )
    if module == "__main__":
        raise NotSendable(
            f"{name} is defined in the program itself, which another node cannot import; move it to a module"
        )
    return f"{module}:{name}"


def factory_named(name: str) -> Callable[..., Any]:
    """Import a factory: a subclass of `Actor`, or a function. Raises `NotSendable`."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise NotSendable(f"the factory {name} cannot be imported here: {error}") from error
    if not (inspect.isfunction(found) or (isinstance(found, type) and issubclass(found, Actor))):
        raise NotSendable(f"{name} makes no actor: it is neither a subclass of Actor nor a function")
    return cast("Callable[..., Any]", found)


def made_of(factory: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call a factory with arguments that have travelled, each as the type that it declares."""
    try:
        hints = get_type_hints(factory.__init__ if isinstance(factory, type) else factory)
    except (NameError, TypeError):
        hints = {}
    parameters = list(inspect.signature(factory).parameters)
    positional = [_converted(value, hints.get(name)) for name, value in zip(parameters, args, strict=False)]
    positional += args[len(parameters) :]
    return factory(*positional, **{name: _converted(value, hints.get(name)) for name, value in kwargs.items()})


def _converted(value: Any, of: Any) -> Any:
    return value if of is None or isinstance(value, ActorRef) else msgspec.convert(value, of)  # pyright: ignore[reportUnknownVariableType]
