"""What a request asks of a model, in no protocol's words: the middle between one form and another. Pure."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast

import msgspec

Role: TypeAlias = Literal["system", "developer", "user", "assistant"]


class Text(msgspec.Struct, frozen=True):
    """A text."""

    text: str


class Declined(msgspec.Struct, frozen=True):
    """The words in which the model refused before."""

    text: str


class Image(msgspec.Struct, frozen=True):
    """An image: the URL where it is, or a data URL that holds it. `detail` is "auto", "low" or "high"."""

    url: str
    detail: str = "auto"


class Called(msgspec.Struct, frozen=True):
    """A call of a tool that the model asked for; `input` are its arguments."""

    id: str
    name: str
    input: dict[str, Any]
    arguments: str
    """The same as JSON, as it came."""


class Result(msgspec.Struct, frozen=True):
    """What a tool answered to the call of this id."""

    id: str
    parts: tuple[Text | Image, ...]
    is_error: bool = False


Part: TypeAlias = Text | Declined | Image | Called | Result


class Utterance(msgspec.Struct, frozen=True):
    """What one side said."""

    role: Role
    parts: tuple[Part, ...]


class Tool(msgspec.Struct, frozen=True):
    """A tool that the model may call; `parameters` is the schema of its arguments."""

    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class Schema(msgspec.Struct, frozen=True):
    """The JSON that the answer must be; any object if `schema` is None."""

    schema: dict[str, Any] | None
    name: str = "answer"
    strict: bool | None = True


class ToolChoice(msgspec.Struct, frozen=True):
    """Which tools must be called: none, any, one, the one of this `name`, or as the model likes ("auto")."""

    kind: Literal["auto", "none", "any", "one"]
    name: str = ""


class Conversation(msgspec.Struct, kw_only=True):
    """A request. None is what it does not say."""

    turns: list[Utterance] = []
    tools: list[Tool] = []
    choice: ToolChoice | None = None
    parallel: bool | None = None
    schema: Schema | None = None
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] = []
    user: str | None = None
    effort: str | None = None
    verbosity: str | None = None


def tool_input(name: str, arguments: str, refusal: type[ValueError]) -> dict[str, Any]:
    """Return the arguments of a call of the tool `name`, which must be a JSON object; raises `refusal` if they are not.

    >>> tool_input("look_up", '{"city": "Bonn"}', ValueError)
    {'city': 'Bonn'}
    """
    try:
        given = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise refusal(f"the arguments of a call of the tool {name!r:.100} are no JSON") from error
    if not isinstance(given, dict):
        raise refusal(f"the arguments of a call of the tool {name!r:.100} are no JSON object")
    return cast("dict[str, Any]", given)
