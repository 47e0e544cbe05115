"""Read the requests file, which has one JSON object a line, and check it before any provider is called."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.command.bad_input import BadInput
from actors.money import OptionalAmountField, amount_default, take_amount, to_micros
from actors.providers.provider import ProviderFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD_INPUT = "-"
REQUIRED = {"service": "the name of a service", "input": "any JSON"}
BOM = b"\xef\xbb\xbf"
EMPTY = "{}: expected at least one request, a JSON object a line, got an empty file"


class RequestLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the file; `timeout` is in seconds, `budget` and `risk` in dollars, all for this request alone.

    A line without an `id` is known by what it asks for.
    """

    id: str | int | msgspec.UnsetType = msgspec.UNSET
    service: str
    input: Any
    budget: OptionalAmountField = amount_default(None)
    timeout: float | None = None
    where: ProviderFilter = ProviderFilter()
    risk: OptionalAmountField = amount_default(None)

    def __post_init__(self) -> None:
        """Refuse values that no request can have."""
        if not self.service:
            raise ValueError("service: expected the name of a service, got an empty string")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout: expected a finite number of seconds above 0, got {self.timeout:g}")
        if self.budget is not None:
            take_amount(self, "budget")
        if self.risk is not None:
            take_amount(self, "risk")

    @property
    def own_id(self) -> str | int | None:
        """The id, if it has one."""
        return None if isinstance(self.id, msgspec.UnsetType) else self.id

    @property
    def content(self) -> bytes:
        """What it asks for, as the same bytes for the same."""
        return CONTENT.encode((self.service, self.input))


CONTENT = msgspec.json.Encoder(order="deterministic")
AMOUNTS = ("budget", "risk")
"""The fields of a line that are dollars."""


def read_requests(path: str) -> list[RequestLine]:
    """Read the file at `path`, or standard input for "-", once. Raises `BadInput` for its first mistake."""
    return parse_requests(_read(path), path=_name_of(path))


def read_lines(path: str) -> list[tuple[int, RequestLine | ValueError]]:
    """Return what each line of the file at `path` is, with its number: a request, or what is wrong with it.

    Raises `BadInput` for a file that cannot be read, or without any line.
    """
    lines = list(lines_of(_read(path)))
    if not lines:
        raise BadInput(EMPTY.format(_name_of(path)))
    return lines


def parse_requests(content: bytes, *, path: str = "requests") -> list[RequestLine]:
    r"""Return the requests in `content`; `path` is what errors call it. Blank lines are skipped.

    Raises `BadInput` for the first mistake, with file, line and field, and for a file without any request.

    >>> [line.id for line in parse_requests(b'{"id": 1, "service": "uppercase", "input": "a"}\n')]
    [1]
    """
    requests: list[RequestLine] = []
    for number, line in lines_of(content):
        if isinstance(line, ValueError):
            raise BadInput(f"{path}: line {number}: {line}") from line
        requests.append(line)
    if not requests:
        raise BadInput(EMPTY.format(path))
    return requests


def lines_of(content: bytes) -> Iterator[tuple[int, RequestLine | ValueError]]:
    """Yield what each line is, with its number: a request, or what is wrong with it. Blank lines are skipped."""
    lines_by_id: dict[str | int, int] = {}
    for number, text in enumerate(content.removeprefix(BOM).split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            request = parse_line(text)
        except ValueError as error:
            yield number, error
            continue
        own_id = request.own_id
        first = number if own_id is None else lines_by_id.setdefault(own_id, number)
        if first != number:
            yield number, ValueError(f"id: expected an id of its own, got {request.id!r}, the id of line {first}")
        else:
            yield number, request


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def _name_of(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else path


def parse_line(text: bytes) -> RequestLine:
    """Return the request of one line. Raises ValueError with the field and what was expected."""
    try:
        document = msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("expected a JSON object, got one that is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, got byte 0x{error.object[error.start]:02x}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"expected a JSON object: {_syntax(str(error))}") from error
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, got {json_type(document)}")  # noqa: TRY004 - an error in a file.
    document = cast("dict[str, Any]", document)
    _refuse_unknown(document, "", RequestLine.__struct_fields__)
    if isinstance(where := document.get("where"), dict):
        # A file has no functions.
        known = tuple(name for name in ProviderFilter.__struct_fields__ if name != "predicate")
        _refuse_unknown(cast("dict[str, Any]", where), "where.", known)
        _read_dollars(cast("dict[str, Any]", where), "max_price", "where.max_price")
    for field in AMOUNTS:
        if field in document:
            _read_dollars(document, field, field)
    try:
        return msgspec.convert(document, RequestLine)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error))) from error


def _refuse_unknown(document: dict[str, Any], prefix: str, known: tuple[str, ...]) -> None:
    for name in document:  # In their order, so that the first is named.
        if name not in known:
            raise ValueError(f"{prefix}{name}: unknown field; known are {', '.join(known)}")


def _read_dollars(document: dict[str, Any], field: str, name: str) -> None:
    """Read an amount that is a JSON number as whole dollars; refuse one with a fraction, with the reason."""
    value = document.get(field)
    if type(value) is int:
        try:
            document[field] = to_micros(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if isinstance(value, float):
        raise ValueError(  # noqa: TRY004 - an error in a file.
            f'{name}: expected a string of dollars such as "0.02", got the number {value!r} '
            "(a float cannot hold most cents exactly)"
        )


def _syntax(problem: str) -> str:
    return problem.removeprefix("JSON is malformed: ")


_JSON_NAMES = {
    "dict": "object",
    "list": "array",
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "NoneType": "null",
}


def json_type(value: object) -> str:
    """Return the name of the type of `value` in JSON."""
    name = type(value).__name__
    return _JSON_NAMES.get(name, name)


def _explain(message: str) -> str:
    """Return a message of msgspec with the field first, and with the type names of JSON.

    >>> _explain("Expected `str | int`, got `null` - at `$.id`")
    'id: expected string or integer, got null'
    >>> _explain("Object missing required field `input`")
    'input: expected any JSON, but the field is missing'
    """
    problem, _, path = message.partition(" - at `$")
    where = path.rstrip("`").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", problem):
        field = missing[1]
        return f"{field}: expected {REQUIRED[field]}, but the field is missing"
    if expected := re.fullmatch(r"Expected `(.*)`, got `(.*)`", problem):
        problem = f"expected {_in_json(expected[1])}, got {_in_json(expected[2])}"
    return f"{where}: {problem}" if where else problem


def _in_json(types: str) -> str:
    return " or ".join(_JSON_NAMES.get(name, name) for name in types.split(" | "))
