"""The vectors in the answer of an embedding model, in the order of its inputs. Pure.

Source: the OpenAI API reference, platform.openai.com/docs/api-reference/embeddings: a vector is a list of numbers, or
with `encoding_format = "base64"` its numbers of 32 bits, the lowest byte first.
"""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Any, cast

import msgspec

from actors.model_calls.answer import MalformedAnswer, objects_in

BYTES_OF_A_NUMBER = 4


def count_of_inputs(given: object) -> int:
    """Return of how many inputs a request for embeddings asks the vectors; a text, or a list of tokens, is one.

    >>> count_of_inputs("a"), count_of_inputs([1, 2, 3]), count_of_inputs(["a", "b"]), count_of_inputs([[1, 2], [3]])
    (1, 1, 2, 2)
    """
    if isinstance(given, list | tuple):
        inputs = cast("list[object]", given)
        return len(inputs) if not inputs or isinstance(inputs[0], str | list | tuple) else 1
    return 1


def written_vectors(request: dict[str, Any], answer: dict[str, Any]) -> list[Any]:
    """Return the vectors of an answer as they are written, in the order of the inputs of its request.

    Raises `MalformedAnswer` if they are not one for each input, or not all as long as the request asks.
    """
    count = count_of_inputs(request.get("input"))
    vectors: list[Any] = [None] * count
    data = list(objects_in(answer, "data"))
    if len(data) != count:
        raise MalformedAnswer(f"it has {len(data)} vectors for {count} inputs")
    for place, one in enumerate(data):
        index = one.get("index", place)
        if type(index) is not int or not 0 <= index < count or vectors[index] is not None:
            raise MalformedAnswer(f"index {index!r:.100} of a vector is that of no input, or is there twice")
        vectors[index] = one.get("embedding")
    lengths = {_length(one) for one in vectors}
    if len(lengths) > 1:
        raise MalformedAnswer(f"its vectors have different lengths: {', '.join(map(str, sorted(lengths)))}")
    wanted = request.get("dimensions")
    if wanted is not None and lengths != {wanted}:
        raise MalformedAnswer(f"its vectors have {lengths.pop()} dimensions, and not the {wanted} that were asked for")
    return vectors


def vector_of(written: object) -> tuple[float, ...]:
    """Return the numbers of a vector as it is written. Raises `MalformedAnswer` if it is none.

    >>> vector_of([1, 0.5]), vector_of("AACAPwAAAD8=")
    ((1.0, 0.5), (1.0, 0.5))
    """
    if isinstance(written, str):
        numbers = array("f", _packed(written))
        if sys.byteorder == "big":
            numbers.byteswap()
        return tuple(numbers)
    try:
        return msgspec.convert(written, type=tuple[float, ...])
    except msgspec.ValidationError as error:
        raise MalformedAnswer(f"a vector is no list of numbers: {error}") from error


def _length(written: object) -> int:
    if isinstance(written, str):
        return len(_packed(written)) // BYTES_OF_A_NUMBER
    if not isinstance(written, list) or not written:
        raise MalformedAnswer(f"a vector is neither a list of numbers nor base64, but {written!r:.50}")
    return len(cast("list[object]", written))


def _packed(written: str) -> bytes:
    try:
        packed = base64.b64decode(written, validate=True)
    except ValueError as error:
        raise MalformedAnswer("a vector is no base64") from error
    if not packed or len(packed) % BYTES_OF_A_NUMBER:
        raise MalformedAnswer(f"a vector of {len(packed)} bytes does not consist of numbers of 32 bits")
    return packed
