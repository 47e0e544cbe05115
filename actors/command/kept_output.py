"""What a results file has of a run that goes on: the lines that stay, and those that are not of the run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Container


class LineKey(msgspec.Struct, frozen=True):
    """What tells a line's request."""

    key: str = ""


class KeptOutput(msgspec.Struct, frozen=True):
    """The lines that stay as they are, the keys of their requests, and how many lines are of something else."""

    content: bytes
    keys: set[str]
    foreign: int


DECODER = msgspec.json.Decoder(LineKey)


def kept_output(content: bytes, *, prefix: str, over: Container[str]) -> KeptOutput:
    r"""Return what of a results file stays when a run goes on: one line for each request that is `over`.

    The keys of the run begin with `prefix`. A last line that was cut off, and the lines of requests that are asked for
    again, are dropped.

    >>> content = b'{"key":"a/1"}\n{"key":"a/2"}\n{"key":"b/1"}\n{"key":"a/1"}\n{"ke'
    >>> kept_output(content, prefix="a/", over={"a/1"})
    KeptOutput(content=b'{"key":"a/1"}\n', keys={'a/1'}, foreign=1)
    """
    whole, kept = content.split(b"\n")[:-1], list[bytes]()
    keys, foreign = set[str](), 0
    for line in whole:
        try:
            key = DECODER.decode(line).key
        except (msgspec.DecodeError, UnicodeDecodeError):
            key = ""
        if not key.startswith(prefix):
            foreign += 1
        elif key in over and key not in keys:
            keys.add(key)
            kept.append(line)
    return KeptOutput(b"".join(line + b"\n" for line in kept), keys, foreign)
