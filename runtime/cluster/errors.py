"""What goes wrong between nodes, by what its caller may conclude: it never ran, or that is unknown."""

from __future__ import annotations

from runtime.errors import ActorCrashed, ActorStopped, Refusal, RuntimeFault


class NeverDelivered(ActorStopped):
    """The node of the actor was gone before the message had left this one: it was never handled."""

    def __init__(self, actor: str, request: str, *, why: str) -> None:
        super().__init__(actor, request)
        self.args = (f"{request} never left for {actor}: {why}",)
        self.why = why


class AnswerLost(ActorCrashed):
    """The node of the actor was lost while the request was there: whether its handler ran is unknown."""

    def __init__(self, actor: str, request: str, *, why: str) -> None:
        super().__init__(actor, request, reason=f"{why}, so whether it was handled is unknown")
        self.why = why


class RemoteCrash(Exception):
    """An error of another node that is not declared here: the name of its type, and its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind
        self.text = text


class RemoteRefusal(Refusal):
    """A refusal by an actor of another node, of a type that the request does not declare (`Request.refusals`)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind
        self.text = text


class NotSendable(RuntimeFault, TypeError):
    """A message, an argument or a factory cannot travel to another node; nothing was sent."""


class NodeLost(RuntimeFault):
    """Another node has ended, or has not been heard of for so long that it counts as ended."""

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"node {node!r} is gone: {why}")
        self.node = node
        self.why = why


class NotOneCluster(RuntimeFault):
    """Two nodes run different versions of Python, of the engine below, or of this package, and cannot work together."""


class CannotActivate(RuntimeFault):
    """A keyed actor has no activation now; `why` says what keeps it from one."""

    def __init__(self, actor: str, why: str) -> None:
        super().__init__(f"{actor} is not activated: {why}")
        self.why = why
