"""Makes a JSON value that a JSON schema allows, so that tools and structured answers have arguments. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from actors.fake.draws import Draw

MAX_DEPTH = 12
"""Below it only what must be there is made, so that a schema which contains itself ends."""
FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
    "duration": "PT1H",
}
TEXTS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")


def example_of(schema: dict[str, Any], draw: Draw) -> Any:
    """Return a value of a schema: what the draw decides is what the schema leaves open.

    >>> from actors.fake.draws import Draw
    >>> example_of(
    ...     {"type": "object", "properties": {"n": {"type": "integer", "minimum": 7, "maximum": 7}}}, Draw(0, b"", 0)
    ... )
    {'n': 7}
    """
    return _Examples(schema, draw).of(schema, "$", 0)


class _Examples:
    def __init__(self, root: dict[str, Any], draw: Draw) -> None:
        self._root = root
        self._draw = draw

    def of(self, told: Any, at: str, depth: int) -> Any:
        if not isinstance(told, dict) or depth > 4 * MAX_DEPTH:
            return None
        schema = cast("dict[str, Any]", told)
        if "$ref" in schema:
            return self.of(self._referred(str(schema["$ref"])), at, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self._draw.below(f"schema {at}", len(schema["enum"]))]
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self.of(self._simplest(schema[word], depth), at, depth + 1)
        if schema.get("allOf"):
            return self.of(_merged([schema, *map(self._resolved, schema["allOf"])]), at, depth + 1)
        return self._of_type(schema, at, depth)

    def _of_type(self, schema: dict[str, Any], at: str, depth: int) -> Any:
        kind: Any = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in cast("list[str]", kind) if one != "null"), "null")
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, at, depth)
        if kind == "array":
            count = int(schema.get("minItems", 0 if depth > MAX_DEPTH else 1))
            return [self.of(schema.get("items", {}), f"{at}[{number}]", depth + 1) for number in range(count)]
        if kind in {"integer", "number"}:
            return self._number(schema, at, whole=kind == "integer")
        if kind == "boolean":
            return self._draw.share(f"schema {at}") < 0.5
        return None if kind == "null" else self._text(schema, at)

    def _object(self, schema: dict[str, Any], at: str, depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties") or {}
        required: Any = schema.get("required") or ()
        return {
            name: self.of(inner, f"{at}.{name}", depth + 1)
            for name, inner in properties.items()
            if name in required or depth <= MAX_DEPTH
        }

    def _number(self, schema: dict[str, Any], at: str, *, whole: bool) -> int | float:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is None:
            low = 0 if high is None else high - 100
        if high is None:
            high = low + 100
        step = schema.get("multipleOf")
        if step:
            first = -(-low // step) * step
            return first + step if first == schema.get("exclusiveMinimum") else first
        if whole:
            first = int(low) + ("exclusiveMinimum" in schema)
            last = int(high) - ("exclusiveMaximum" in schema)
            return first + self._draw.below(f"schema {at}", max(1, last - first + 1))
        share = 0.25 + self._draw.share(f"schema {at}") / 2
        return low + (high - low) * round(share, 2)

    def _text(self, schema: dict[str, Any], at: str) -> str:
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        text = TEXTS[self._draw.below(f"schema {at}", len(TEXTS))]
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        while len(text) < least:
            text += text
        return text if most is None else text[: max(least, int(most))]

    def _simplest(self, choices: list[Any], depth: int) -> Any:
        """Return the first choice that is not null; deep inside, one that ends."""
        resolved = [self._resolved(one) for one in choices]
        if depth > MAX_DEPTH:
            return next((one for one in resolved if one.get("type") == "null"), resolved[0])
        return next((one for one in resolved if one.get("type") != "null"), resolved[0])

    def _resolved(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, dict):
            return {}
        told = cast("dict[str, Any]", schema)
        return self._referred(str(told["$ref"])) if "$ref" in told else told

    def _referred(self, name: str) -> dict[str, Any]:
        found: Any = self._root
        for word in name.removeprefix("#").strip("/").split("/"):
            if word:
                key = word.replace("~1", "/").replace("~0", "~")
                found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _merged(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for one in schemas:
        properties |= one.get("properties") or {}
        required += one.get("required") or []
        found |= {name: value for name, value in one.items() if name != "allOf"}
    return found | ({"properties": properties, "required": required} if properties else {})
