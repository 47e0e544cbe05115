"""What a request asks for, whatever its form: the common reading on which a fake server decides its answer. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal, TypeAlias, cast

import msgspec

Form: TypeAlias = Literal["chat", "responses", "messages", "embeddings"]
MESSAGE_TOKENS = 4
"""What the template of a chat adds to each message."""
PART_TOKENS = 258
"""What an image, a sound or a file counts, whatever its size."""


class RequestRefused(Exception):
    """A request that is answered by an error: its status, and what the dialect says; no message is the usual one."""

    def __init__(
        self,
        status: int,
        message: str | None,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after


class AskedTool(msgspec.Struct, frozen=True):
    """A function that the model may call, with the JSON schema of its arguments."""

    name: str
    schema: dict[str, Any]
    custom: bool = False
    """Whether its argument is a plain text and not JSON."""


class CacheMark(msgspec.Struct, frozen=True):
    """A place up to which a request can be cached: the bytes before it and their digest."""

    size_bytes: int
    digest: bytes
    hour: bool = False
    """Whether it is kept for an hour and not for five minutes."""


class Asked(msgspec.Struct, kw_only=True):
    """One request in a form of its own."""

    form: Form
    model: str
    body: dict[str, Any]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    choices: int = 1
    text_bytes: int = 0
    extra_tokens: int = 0
    last_text: str = ""
    tools: tuple[AskedTool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or `=NAME` for one tool."""
    parallel: bool = True
    tool_results: int = 0
    """The results of tools since the user's last message."""
    schema: dict[str, Any] | None = None
    """Of the answer; empty if it may be any JSON object."""
    reasoning: bool = False
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    marks: list[CacheMark] = []
    tenant: str = ""
    background: bool = False
    inputs: list[Any] = []
    """The inputs of an embedding: texts, or lists of tokens."""


class PromptReader:
    """Counts the text of a conversation, message by message, and remembers where a cache may begin anew."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.extra_tokens = 0
        self.marks: list[CacheMark] = []
        self._digest = blake2b(digest_size=16)

    def text(self, text: str) -> None:
        """Count a text."""
        data = text.encode("utf-8", "surrogatepass")
        self.size_bytes += len(data)
        self._digest.update(data)

    def data(self, value: Any) -> None:
        """Count a value by its JSON text."""
        data = msgspec.json.encode(value)
        self.size_bytes += len(data)
        self._digest.update(data)

    def part(self, value: Any) -> None:
        """Count an image, a sound or a file."""
        self._digest.update(msgspec.json.encode(value))
        self.extra_tokens += PART_TOKENS

    def end_message(self) -> None:
        """End a message."""
        self._digest.update(b"\0")
        self.extra_tokens += MESSAGE_TOKENS

    def mark(self, *, hour: bool = False) -> None:
        """Note that the request can be cached up to here."""
        self.marks.append(CacheMark(self.size_bytes, self._digest.copy().digest(), hour))


def want(condition: object, message: str, *, param: str | None = None) -> None:
    """Raises `RequestRefused` with status 400 unless the condition holds."""
    if not condition:
        raise RequestRefused(400, message, param=param)


def as_object(value: Any, param: str) -> dict[str, Any]:
    """Return a JSON object. Raises `RequestRefused` for anything else."""
    want(isinstance(value, dict), f"Invalid type for '{param}': expected an object.", param=param)
    return cast("dict[str, Any]", value)


def as_list(value: Any, param: str) -> list[Any]:
    """Return a JSON array. Raises `RequestRefused` for anything else."""
    want(isinstance(value, list), f"Invalid type for '{param}': expected an array.", param=param)
    return cast("list[Any]", value)


def as_count(body: dict[str, Any], name: str, *, least: int = 1) -> int | None:
    """Return a whole number of the body, or None if it is absent. Raises `RequestRefused` for anything else."""
    value = body.get(name)
    if value is None:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    want(whole, f"Invalid type for '{name}': expected an integer.", param=name)
    want(value >= least, f"Invalid '{name}': expected a value >= {least}, but got {value} instead.", param=name)
    return cast("int", value)


def refuse_unknown(body: dict[str, Any], known: frozenset[str]) -> None:
    """Raises `RequestRefused` for a field that the form does not have."""
    for name in body:
        if name not in known:
            raise RequestRefused(400, f"Unrecognized request argument supplied: {name}", param=name)
