"""Messages, answers and errors as bytes: decoded only into types that are declared, never into what a sender names."""

from __future__ import annotations

import functools
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ForwardRef, get_args, get_origin

import msgspec

from runtime.cluster.errors import NotSendable, RemoteCrash, RemoteRefusal
from runtime.cluster.frames import WireError
from runtime.cluster.homes import Keyed  # noqa: TC001 - msgspec resolves an annotation below.
from runtime.errors import ActorCrashed, ActorStopped, AskTimeout, MailboxFull, Refusal, Unhandled
from runtime.messages import Request, name_of
from runtime.ref import ActorRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

REF = 1
"""The code of a ref among the extension types of msgpack."""


class WireRef(msgspec.Struct, array_like=True, frozen=True):
    """An actor as other nodes name it: a life of a node, and the actor's number there; or the name of a keyed one."""

    node: str
    epoch: int
    number: int
    path: str
    keyed: Keyed | None = None


_decode_ref = msgspec.msgpack.Decoder(WireRef).decode
_plain = msgspec.msgpack.Encoder()


class MessageCodec:
    """Encodes what refs may be in; `export` gives the wire's name of a ref, `meet` the ref of a name."""

    def __init__(self, export: Callable[[ActorRef[Any]], WireRef], meet: Callable[[WireRef], ActorRef[Any]]) -> None:
        self._export = export
        self._meet = meet
        self._encode = msgspec.msgpack.Encoder(enc_hook=self._encode_ref).encode
        self._decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}

    def encode(self, value: Any) -> bytes:
        """Return a value as bytes. Raises `NotSendable`."""
        try:
            return self._encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise NotSendable(
                f"{name_of(value)} cannot travel to another node: {error}; messages and answers hold plain data, "
                "Structs and refs"
            ) from error

    def decode(self, body: bytes, of: Any) -> Any:
        """Return bytes as a value of a type. Raises `msgspec.MsgspecError`."""
        decoder = self._decoders.get(of)
        if decoder is None:
            decoder = msgspec.msgpack.Decoder(of, ext_hook=self._decode_ext, dec_hook=_checked)
            self._decoders[of] = decoder
        return decoder.decode(body)

    def _encode_ref(self, value: Any) -> msgspec.msgpack.Ext:
        if isinstance(value, ActorRef):
            return msgspec.msgpack.Ext(REF, _plain.encode(self._export(value)))  # pyright: ignore[reportUnknownArgumentType]
        raise TypeError(f"it holds {value!r:.100}")

    def _decode_ext(self, code: int, data: memoryview) -> ActorRef[Any]:
        if code != REF:
            raise msgspec.ValidationError(f"extension type {code} is not known")
        return self._meet(_decode_ref(data))


def _checked(of: Any, value: Any) -> Any:
    """Return a value of a type that msgspec does not know, which only refs may be."""
    if not isinstance(value, get_origin(of) or of):
        raise msgspec.ValidationError(f"expected {of}, got {type(value).__name__}")
    return value


def kind_of(message: object) -> type[Any]:
    """Return the type of a message."""
    return type(message)


def tag_of(kind: type[Any]) -> str:
    """Return how a type is named between nodes.

    >>> tag_of(Request)
    'runtime.messages:Request'
    """
    return f"{kind.__module__}:{kind.__qualname__}"


def declared_types(handled: Iterable[type]) -> dict[str, type]:
    """Return by their names the types that an actor takes: those it handles, and their subclasses."""
    return {tag_of(kind): kind for one in handled for kind in _with_subclasses(one)}


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    for one in kind.__subclasses__():
        yield from _with_subclasses(one)


def answer_type(request: type[Any]) -> Any:
    """Return the type that answers a request. Raises `NotSendable` if its declaration does not say.

    >>> class Balance(Request[int]):
    ...     pass
    >>> answer_type(Balance)
    <class 'int'>
    """
    for base in getattr(request, "__orig_bases__", ()):
        if get_origin(base) is Request:
            (answer,) = get_args(base)
            if isinstance(answer, ForwardRef | str):
                answer = _resolved(answer, request)
            return type(None) if answer is None else answer
    parents: list[type[Any]] = [one for one in request.__bases__ if issubclass(one, Request) and one is not Request]
    if parents:
        return answer_type(parents[0])
    raise NotSendable(f"{request.__qualname__} does not say what answers it; derive it from Request[...]")


def _resolved(answer: ForwardRef | str, request: type[Any]) -> Any:
    text = answer.__forward_arg__ if isinstance(answer, ForwardRef) else answer
    found: Any = sys.modules[request.__module__]
    for part in text.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise NotSendable(f"the answer {text!r} of {request.__qualname__} cannot be found in {request.__module__}")
    return found


def text_of(error: BaseException) -> str:
    r"""Return what an error says, as text that can travel.

    >>> text_of(ValueError("half a character: \ud83d"))
    'half a character: \\ud83d'
    """
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - of its own `__str__`.
        return "its text cannot be read"


def error_to_wire(error: BaseException) -> WireError:
    """Return an error as it travels."""
    kind, text = tag_of(type(error)), text_of(error)
    match error:
        case Refusal():
            try:
                return WireError("refusal", kind, text, _plain.encode([list(error.args), vars(error)]))
            except (TypeError, ValueError, OverflowError, RecursionError):
                return WireError("refusal", kind, text)
        case AskTimeout():
            return WireError("timeout", kind, text)
        case ActorStopped():
            return WireError("stopped", kind, text)
        case MailboxFull():
            return WireError("full", kind, text, _plain.encode(error.capacity))
        case Unhandled():
            return WireError("unhandled", kind, text, _plain.encode(error.handled))
        case ActorCrashed():
            cause = error.__cause__
            shown = "" if cause is None else tag_of(type(cause))
            reason = error.reason.encode("utf-8", "backslashreplace").decode()
            return WireError("crashed", shown, "" if cause is None else text_of(cause), _plain.encode(reason))
        case _:
            return WireError("error", kind, text)


def error_from_wire(error: WireError, *, actor: str, request: Any, timeout: float) -> Exception:
    """Return the error that a request ends with here."""
    named = name_of(request)
    kind = kind_of(request)
    match error.family:
        case "refusal":
            return _refusal(error, kind)
        case "timeout":
            return AskTimeout(actor, named, timeout=timeout)
        case "stopped":
            return ActorStopped(actor, named)
        case "full":
            return MailboxFull(actor, capacity=msgspec.msgpack.decode(error.state, type=int))
        case "unhandled":
            return Unhandled(actor, named, handled=msgspec.msgpack.decode(error.state, type=list[str]))
        case "crashed":
            crash = ActorCrashed(actor, named, reason=msgspec.msgpack.decode(error.state, type=str))
            if error.kind:
                crash.__cause__ = RemoteCrash(error.kind, error.text)
            return crash
        case _:
            return RemoteCrash(error.kind, error.text)


def _refusal(error: WireError, request: type[Any]) -> Refusal:
    """Return the refusal itself if the request declares its type, else what is known of it."""
    declared: tuple[type[Refusal], ...] = getattr(request, "refusals", ())
    kind = next((one for one in declared if tag_of(one) == error.kind), None)
    if kind is None or not error.state:
        return RemoteRefusal(error.kind, error.text)
    try:
        args, fields = msgspec.msgpack.decode(error.state, type=tuple[list[Any], dict[str, Any]])
    except msgspec.MsgspecError:
        return RemoteRefusal(error.kind, error.text)
    made = kind.__new__(kind, *args)
    made.args = tuple(args)
    types = field_types(kind)
    try:
        vars(made).update({name: _as_declared(value, types.get(name)) for name, value in fields.items()})
    except msgspec.ValidationError:
        return RemoteRefusal(error.kind, error.text)
    return made


@functools.cache
def field_types(kind: type[Refusal]) -> dict[str, Any]:
    """Return the types of a refusal's fields, as far as its class or the parameters of the same name declare them.

    >>> field_types(Refusal)
    {}
    """
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        names = vars(sys.modules[base.__module__])
        declared = {
            **vars(base).get("__annotations__", {}),
            **getattr(vars(base).get("__init__"), "__annotations__", {}),
        }
        for name, of in declared.items():
            with suppress(NameError, TypeError):  # A name that is imported for annotations alone.
                found[name] = eval(of, names) if isinstance(of, str) else of  # noqa: S307 - the class's own annotation.
    return found


def _as_declared(value: Any, of: Any) -> Any:
    if of is None:
        return value
    try:
        return msgspec.convert(value, of)
    except TypeError:
        return value  # Of a type that msgspec does not know.
