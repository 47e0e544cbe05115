"""Values as bytes: msgpack in which each type is named in full, so that programs and journals can be read later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def qualified(room: str) -> Callable[[str], str]:
    r"""Return what makes the `tag` of a Struct: its class name after the name of the room that it belongs to.

    >>> class Settled(msgspec.Struct, tag=qualified("shop")):
    ...     cost: int
    >>> Codec(Settled).encode(Settled(5))
    b'\x82\xa4type\xacshop.Settled\xa4cost\x05'
    """
    return lambda name: f"{room}.{name}"


class Codec(Generic[T]):
    """Encodes values of one type, or of a union of tagged Structs, and decodes them; raises `msgspec.MsgspecError`.

    Every Struct of a union needs a tag with a dot in it, as `qualified` makes them, because two rooms may have types of
    one name.
    """

    def __init__(self, of: Any) -> None:
        for one in getattr(of, "__args__", (of,)):
            tag = one.__struct_config__.tag if isinstance(one, type) and issubclass(one, msgspec.Struct) else "."
            if "." not in str(tag):
                raise ValueError(f'the tag of {one.__name__} must name its room: tag=qualified("...")')
        self.encode: Callable[[T], bytes] = msgspec.msgpack.Encoder().encode
        self._decoder = msgspec.msgpack.Decoder(of)
        self.decode: Callable[[bytes], T] = self._decoder.decode

    def __repr__(self) -> str:
        return f"<Codec of {self._decoder.type}>"
