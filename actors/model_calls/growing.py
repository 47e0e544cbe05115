"""Text that comes in many small parts: kept as parts, and joined when it is read. Pure.

Adding each part to the text so far would copy that text each time, which is quadratic in its length.
"""

from __future__ import annotations

import re
from typing import Any

MARKS = re.compile(r'["\\{}\[\]]')
"""The characters by which the end of a JSON object is found."""


class GrowingText:
    """A text that grows by parts; `str` joins them."""

    __slots__ = ("_parts",)

    def __init__(self, text: str = "") -> None:
        self._parts = [text] if text else []

    def add(self, text: str) -> None:
        """Add a part at the end."""
        self._parts.append(text)

    def __str__(self) -> str:
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def __bool__(self) -> bool:
        return any(self._parts)

    def __repr__(self) -> str:
        return f"GrowingText({str(self)!r:.60})"


class GrowingJson(GrowingText):
    """The text of a JSON object that grows by parts; each of them is looked at once.

    `is_whole` says whether its last bracket has come, whatever stands between the brackets.

    >>> arguments = GrowingJson()
    >>> for part in ('{"a": "}', '", "b": {', "}", "}"):
    ...     arguments.add(part)
    ...     print(arguments.is_whole)
    False
    False
    False
    True
    """

    __slots__ = ("_depth", "_is_escaped", "_is_in_text", "is_whole")

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.is_whole = False
        self._depth = 0
        self._is_in_text = self._is_escaped = False
        """Whether the parts so far end within a text, and with a backslash in it."""
        self.add(text)

    def add(self, text: str) -> None:
        if not text:
            return
        super().add(text)
        begin, self._is_escaped = int(self._is_escaped), False
        while (mark := MARKS.search(text, begin)) is not None:
            begin = mark.end()
            match mark[0]:
                case "\\":
                    if self._is_in_text:
                        self._is_escaped = begin >= len(text)
                        begin += 1
                case '"':
                    self._is_in_text = not self._is_in_text
                case _ if self._is_in_text:
                    pass
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    self.is_whole |= self._depth <= 0


def shown(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `fields` in which each text that grows is the text so far.

    >>> shown({"text": GrowingText("Hi"), "index": 0})
    {'text': 'Hi', 'index': 0}
    """
    return {name: str(value) if isinstance(value, GrowingText) else value for name, value in fields.items()}
