"""Server-sent events as bytes, as the forms frame them."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


def data_event(value: Any) -> bytes:
    r"""Return an event that has data alone, as chat completions do.

    >>> data_event({"a": 1})
    b'data: {"a":1}\n\n'
    """
    return b"data: %b\n\n" % _encode(value)


def named_event(value: dict[str, Any]) -> bytes:
    r"""Return an event that is named as the `type` of its data, as Responses and Messages do.

    >>> named_event({"type": "ping"})
    b'event: ping\ndata: {"type":"ping"}\n\n'
    """
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), _encode(value))
