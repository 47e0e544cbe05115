"""What travels between nodes: frames in batches, as msgpack. Bodies are decoded later, into their declared types."""

from __future__ import annotations

from typing import Any

import msgspec

from runtime.cluster.homes import Keyed  # noqa: TC001 - msgspec resolves the annotations below.
from runtime.cluster.port import NodeLife  # noqa: TC001 - as above.
from runtime.ref import ActorRef  # noqa: TC001 - as above.


class Frame(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """The base class of what one node says to another; `to` is the number of an actor there."""


class WireError(msgspec.Struct, array_like=True, frozen=True):
    """An error: its family here, the name of its type, its text, and what is needed to make it again."""

    family: str
    kind: str
    text: str
    state: bytes = b""


class TellFrame(Frame, frozen=True, tag="t"):
    """A message that was told."""

    to: int
    kind: str
    body: bytes


class AskFrame(Frame, frozen=True, tag="a"):
    """`left` is the seconds to its deadline; `awaits` is False for a `send`, which only waits for room."""

    number: int
    to: int
    kind: str
    body: bytes
    left: float | None
    carried: dict[str, Any] = {}
    awaits: bool = True


class CancelFrame(Frame, frozen=True, tag="c"):
    """The asker has given up, or did not take the answer."""

    number: int


class AnswerFrame(Frame, frozen=True, tag="r"):
    """The answer to a request."""

    number: int
    body: bytes


class FailureFrame(Frame, frozen=True, tag="f"):
    """The error that a request ends with."""

    number: int
    error: WireError


class WatchFrame(Frame, frozen=True, tag="w"):
    """Asks to be told when an actor ends."""

    to: int


class EndedFrame(Frame, frozen=True, tag="e"):
    """An actor of the sender has ended."""

    number: int
    reason: str
    error: WireError | None = None


class EndFrame(Frame, frozen=True, tag="s"):
    """Stop an actor, or kill it."""

    to: int
    kill: bool


class SpawnFrame(Frame, frozen=True, tag="n"):
    """Asks for an actor to be started, by which factory with which arguments; `is_owned` if it ends with its asker."""

    number: int
    factory: str
    args: bytes
    name: str | None
    restart: str
    is_owned: bool = False


class FindFrame(Frame, frozen=True, tag="l"):
    """Asks for the actor that was started under a name."""

    number: int
    name: str


class ActivateFrame(Frame, frozen=True, tag="k"):
    """Asks for the activation of a keyed actor; the sender has seen its journal with this `epoch`."""

    number: int
    name: Keyed
    epoch: int


class HoldsFrame(Frame, frozen=True, tag="h"):
    """Asks for the epoch of the journal that the receiver has of a keyed actor; 0 if it has none."""

    number: int
    name: Keyed


class Activated(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """Answers `ActivateFrame`: the activation, and the epoch under which it writes."""

    ref: ActorRef[Any]
    epoch: int


class Elsewhere(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """Answers `ActivateFrame`: it is not activated here, and why; another node has its journal if `at` names it."""

    why: str
    at: str = ""


AnyFrame = (
    TellFrame
    | AskFrame
    | CancelFrame
    | AnswerFrame
    | FailureFrame
    | WatchFrame
    | EndedFrame
    | EndFrame
    | SpawnFrame
    | FindFrame
    | ActivateFrame
    | HoldsFrame
)


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """Frames of one sender in their order.

    `session` counts the sender's conversations with this node: one ends when the other is taken for dead. `number` is
    the batch's place in it. All replies to batches below `replied` have arrived. `holds` asks for the reply to wait a
    moment for the answers.
    """

    sender: NodeLife
    epoch: int
    session: int
    number: int
    replied: int
    holds: bool
    frames: list[bytes]


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """What a batch is answered with: whether it was taken, and frames that were ready."""

    status: str
    frames: list[bytes] = []


TAKEN, STALE, MALFORMED = "taken", "stale", "malformed"

encode = msgspec.msgpack.Encoder().encode
decode_frame = msgspec.msgpack.Decoder(AnyFrame).decode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
