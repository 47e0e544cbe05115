"""Decodes large JSON in slices, so that other tasks run in between. Pure: the caller decides when to go on.

The decoder holds the interpreter until it has finished, which takes 140 ms for 4 MB of `{}`, and a thread does not
help. So the text is cut at commas outside of strings. Each slice is decoded on its own, as a document in which the
lists and objects that are open at the cut are opened again; its members are then added to what was decoded before.

What the garbage collector costs stays: a full pass goes over every container that the program holds, so millions of
them cost a tenth of a second now and then, however they were made.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE_BYTES = 32_768
MAX_DEPTH = 1_000
"""Deeper nesting than the decoder takes."""
MAX_BRACKETS = 65_536
"""So many brackets without a comma are nested too deep."""

OUTSIDE = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""All text up to the first string that does not end."""
INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The rest of a string up to its end."""
STRING = re.compile(rb'("(?:[^"\\]++|\\.)*+")', re.DOTALL)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
CLOSES = {ord("["): b"]", ord("{"): b"}"}
OPENS = {ord("]"): ord("["), ord("}"): ord("{")}


class JsonSlice(NamedTuple):
    """A part of the text between two cuts, and that part without its strings."""

    text: bytes
    outside: bytes


class SlicedDecoder:
    """Decodes `text` as `msgspec.json.decode` does, in slices of about `size` bytes; one string is never cut.

    >>> decoder = SlicedDecoder(b'{"output": [1, {"a": [2, 3]}, 4]}', size=8)
    >>> _ = list(decoder.steps())
    >>> decoder.value
    {'output': [1, {'a': [2, 3]}, 4]}
    """

    def __init__(self, text: bytes, *, size: int = SLICE_BYTES) -> None:
        self.value: Any = msgspec.UNSET
        """What was decoded so far; complete after the last step."""
        self._text = text
        self._size = size
        self._open = b""
        """The brackets that are open at the last cut, the outermost first."""
        self._path: list[Any] = []
        """The lists and dicts that they opened."""
        # Random, so that no text contains them.
        self._continued = secrets.token_hex(8)
        """The key of an open container in an object that is opened again."""
        self._mark = secrets.token_hex(8)
        """The last member of the innermost open container, by which it is found again."""

    def steps(self) -> Iterator[None]:
        """Decode one slice in each step. Raises ValueError, such as `msgspec.DecodeError`, or RecursionError."""
        found: JsonSlice | None = None
        for following in self._slices():
            if following is None:
                yield
                continue
            if found is not None:
                if not self._add(found, is_last=False):
                    # A repeated key: what is open is not the last member. That is rare enough to decode it at once.
                    self.value = msgspec.json.decode(self._text)
                    return
                yield
            found = following
        assert found is not None  # noqa: S101 - there is always a last slice.
        self._add(found, is_last=True)

    def _slices(self) -> Iterator[JsonSlice | None]:
        """Yield the slices; None if a long string takes another step."""
        text, start, position, outside = self._text, 0, 0, b""
        while position < len(text):
            found = OUTSIDE.match(text, position, position + self._size)
            assert found is not None  # noqa: S101 - it matches the empty text.
            position = found.end()
            # Text outside of strings stands at even places, the strings between them at odd ones.
            tokens, after = STRING.split(found[0]), 0
            for place in range(len(tokens) - 1, -1, -2):
                comma = tokens[place].rfind(b",")
                if comma >= 0:
                    cut = position - after - len(tokens[place]) + comma
                    before = b"".join(tokens[:place:2]) + tokens[place][:comma]
                    yield JsonSlice(text[start:cut], outside + before)
                    start, outside = cut + 1, tokens[place][comma + 1 :] + b"".join(tokens[place + 2 :: 2])
                    break
                after += len(tokens[place]) + len(tokens[place - 1])
            else:
                outside += b"".join(tokens[::2])
            if text[position : position + 1] == b'"' and position < found.endpos:
                position += 1
                while text[position : position + 1] != b'"':
                    past, position = position, self._inside(position)
                    if past == position:
                        break  # The string never ends, which the decoder will say.
                    yield None
                position += 1
        yield JsonSlice(text[start:], outside)

    def _inside(self, position: int) -> int:
        """Return a later position in the same string, or its end."""
        found = INSIDE.match(self._text, position, position + self._size)
        assert found is not None  # noqa: S101 - it matches the empty text.
        return found.end()

    def _add(self, found: JsonSlice, *, is_last: bool) -> bool:
        """Decode a slice and add it to the value; return whether the next one can be added to it."""
        before, after = self._open, _open_after(self._open, found.outside)
        bare = found.text.strip(b" \t\r\n")
        if is_last == bool(after) or (before and bare[:1] in {b"]", b"}", b""}) or (not is_last and bare[-1:] in b"[{"):
            raise msgspec.DecodeError("JSON is malformed: a comma or a bracket is not where it may be")
        mark, key = self._mark.encode(), self._continued.encode()
        opening = b"".join(b'{"%b":' % key if bracket == ord("{") else b"[" for bracket in before[:-1]) + before[-1:]
        closing = b"".join(CLOSES[bracket] for bracket in reversed(after))
        marked = b"" if is_last else b',"%b":0' % mark if after[-1:] == b"{" else b',"%b"' % mark
        decoded = msgspec.json.decode(opening + found.text + marked + closing)
        if before:
            self._merge(decoded)
        else:
            self.value = decoded
        self._open = after
        return is_last or self._descend(len(after))

    def _merge(self, decoded: Any) -> None:
        """Add the members of each container that was opened again to the container that it continues."""
        innermost = len(self._path) - 1
        for depth, container in enumerate(self._path):
            continued: Any = None
            if isinstance(container, list):
                if depth < innermost:
                    continued = decoded.pop(0)
                cast("list[Any]", container).extend(decoded)
            else:
                if depth < innermost:
                    continued = decoded.pop(self._continued)
                container.update(decoded)
            decoded = continued

    def _descend(self, depth: int) -> bool:
        """Find the open containers, each the last member of the one before it; return whether they are found.

        They are if the innermost ends with the mark, which is then removed.
        """
        value: Any = self.value
        self._path = []
        for _ in range(depth):
            if not value or not isinstance(value, list | dict):
                return False
            container = cast("list[Any] | dict[str, Any]", value)
            self._path.append(container)
            if isinstance(container, list):
                value = container[-1]
            else:
                name = next(reversed(container))
                value = self._mark if name == self._mark else container[name]
        if value != self._mark:
            return False
        innermost = self._path[-1]
        if isinstance(innermost, list):
            innermost.pop()
        else:
            del innermost[self._mark]
        return True


def _open_after(before: bytes, outside: bytes) -> bytes:
    """Return the brackets that are open after more text, given without its strings. Raises `msgspec.DecodeError`."""
    brackets = outside.translate(None, NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        length = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if length == len(brackets):
            break
        if length > MAX_BRACKETS:
            raise msgspec.DecodeError("JSON is malformed: it is nested too deep")
    still_open = bytearray(before)
    for bracket in brackets:
        if bracket in CLOSES:
            still_open.append(bracket)
        elif not still_open or still_open.pop() != OPENS[bracket]:
            raise msgspec.DecodeError("JSON is malformed: brackets do not match")
    return bytes(still_open)
