"""Embeddings: how they are asked for, and vectors that depend on model and text alone. Pure.

Source: the OpenAI API reference, platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from hashlib import shake_256
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.fake.asked import Asked, as_count, as_list, refuse_unknown, want

if TYPE_CHECKING:
    from actors.fake.made import Made

FIELDS = frozenset({"input", "model", "dimensions", "encoding_format", "user"})
MAX_INPUTS = 2048


def read_embeddings(body: dict[str, Any], *, strict: bool) -> Asked:
    """Return what a request for embeddings asks for. Raises `RequestRefused` for a body that is none."""
    if strict:
        refuse_unknown(body, FIELDS)
    want(isinstance(body.get("model"), str), "you must provide a model parameter", param="model")
    asked = Asked(form="embeddings", model=body["model"], body=body, tenant=str(body.get("user") or ""))
    given: Any = body.get("input")
    inputs = cast("list[Any]", [given]) if isinstance(given, str) else as_list(given, "input")
    if inputs and isinstance(inputs[0], int):
        inputs = cast("list[Any]", [given])
    asked.inputs = inputs
    count = len(inputs)
    want(0 < count <= MAX_INPUTS, f"'$.input' must have 1 to {MAX_INPUTS} items.", param="input")
    for one in inputs:
        is_input = isinstance(one, str | list) and one not in ("", [])
        want(is_input, "'$.input' is invalid: an item is empty or no text.", param="input")
        if isinstance(one, str):
            asked.text_bytes += len(one.encode("utf-8", "surrogatepass"))
        else:
            asked.extra_tokens += len(cast("list[int]", one))
    as_count(body, "dimensions")
    want(body.get("encoding_format", "float") in {"float", "base64"}, "Invalid value.", param="encoding_format")
    return asked


def embeddings_body(made: Made) -> dict[str, Any]:
    """Return the vectors, as lists of numbers or in base64."""
    count = made.asked.body.get("dimensions") or made.model.dimensions
    packed = made.asked.body.get("encoding_format") == "base64"
    body: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": number, "embedding": _written(vector(made.model.name, one, count), packed)}
            for number, one in enumerate(made.asked.inputs)
        ],
        "model": made.model.name,
    }
    if made.tells_usage:
        tokens = made.told_usage.all_input
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return body


def vector(model: str, given: Any, count: int) -> array[float]:
    """Return a vector of length 1 that depends on the model and the input alone, in numbers of 32 bits.

    >>> vector("m", "a", 4) == vector("m", "a", 4) != vector("m", "b", 4)
    True
    """
    content = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else msgspec.json.encode(given)
    drawn = array("h", shake_256(model.encode() + b"\0" + content).digest(2 * count))
    if sys.byteorder == "big":
        drawn.byteswap()
    length = math.sqrt(sum(one * one for one in drawn)) or 1.0
    return array("f", [one / length for one in drawn])


def _written(numbers: array[float], packed: bool) -> Any:  # noqa: FBT001 - which of two forms.
    if not packed:
        return list(numbers)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def embeddings_id(made: Made) -> str:
    """Return the id by which the books know a request for embeddings."""
    return f"embd-{made.id}"
