"""What a request to a model needs, told from its body: a bound of its tokens that holds, and an estimate.

No vocabulary is needed. A token stands for at least one byte of UTF-8 in every byte-level tokenizer, so the bytes of
all text bound its tokens; about four bytes make one in English text and code, which is the first estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec

from actors.tariffs.demand import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Form: TypeAlias = Literal["chat", "responses", "messages", "embeddings"]
"""The protocols: OpenAI's chat completions, responses and embeddings, and Anthropic's messages."""

BYTES_PER_TOKEN = 4
"""Of the first estimate: English and code come within 4 % of it, German is 19 % and Chinese 32 % over."""
MOST_BYTES_PER_TOKEN = 6
"""More bytes than this make one token in no text of some length: what is too long by this count is too long."""
SAMPLE = 2_000
"""Characters of a text that are looked at to tell which kind of text it is."""
LETTERS_AND_SPACES = bytes(one for one in range(128) if chr(one).isalpha() or chr(one).isspace())
"""Of ASCII."""
MAX_COUNT = 2**40
OUTPUT_GUESS = 512
"""Tokens that an answer is taken to have while no answer of its kind has come."""


TYPICAL_CALL = Demand(input_bound=4_000, input_estimate=1_000, output_bound=OUTPUT_GUESS, output_estimate=OUTPUT_GUESS)
"""A call of usual size, by which tariffs are compared with the price of a call: 1,000 tokens read and 512 written."""


class Overheads(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that a provider adds to the text: once a `call`, for each `message`, and so on.

    `tools` are added once if there are any, for the provider's own instructions about them. An `image` or a `file`
    counts so much, whatever its size; a file counts a token for each `file_bytes` of it at least.
    """

    call: int
    message: int
    tools: int
    tool: int
    image: int
    file: int
    file_bytes: int


BOUND = Overheads(call=64, message=16, tools=1_024, tool=64, image=50_000, file=200_000, file_bytes=4)
"""The instructions about tools are 159 to 804 tokens at Anthropic (its page "Tool use"). An image of high detail is up
to 48,169 tokens at gpt-4o-mini (OpenAI: "Images and vision"), and a page of a PDF 3,000 at most at Anthropic. That
66 pages are the most is a guess: state the window of a model that gets longer ones (`max_input_tokens`)."""
LIKELY = Overheads(call=4, message=4, tools=300, tool=12, image=1_000, file=5_000, file_bytes=40)

TEXT_FIELDS = ("messages", "system", "instructions", "input", "prompt", "tools", "functions", "response_format", "text")
"""What of a body the model reads as a rule. The bound takes it to read the other fields too."""
MEDIA = {"image": "image", "image_url": "image", "input_image": "image"} | dict.fromkeys(
    ("document", "file", "input_file", "input_audio", "audio", "video", "video_url"), "file"
)
"""The types of parts that are no text."""
OUTPUT_FIELDS: dict[Form, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
    "embeddings": (),
}
"""The fields that bound the output; the first is the one to set."""


class _Tally:
    """What was counted of a body: its media, and its texts, which are measured together."""

    __slots__ = ("file_bytes", "files", "images", "texts")

    def __init__(self) -> None:
        self.images = self.files = self.file_bytes = 0
        self.texts: list[str] = []

    def joined(self) -> str:
        return "".join(self.texts)


def _size(text: str) -> int:
    # A lone surrogate cannot be sent; it is for the transport to say so.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _figures(sample: str) -> int:
    """Return how many characters are neither letters nor spaces."""
    if sample.isascii():
        return len(sample.encode().translate(None, LETTERS_AND_SPACES))
    # No character is both, and `map` takes a tenth of the time of a loop.
    return len(sample) - sum(map(str.isalpha, sample)) - sum(map(str.isspace, sample))


def form_of(body: Mapping[str, Any]) -> Form | None:
    """Return the form of a request's body; None if it is of none that is known here."""
    if "messages" in body:
        return "messages" if "system" in body or "anthropic_version" in body else "chat"
    if "input" not in body:
        return "chat" if "prompt" in body else None
    is_embedding = "encoding_format" in body or "dimensions" in body or "embed" in str(body.get("model", "")).lower()
    return "embeddings" if is_embedding else "responses"


def demand_of(
    body: object, *, form: Form | None = None, bound: Overheads = BOUND, likely: Overheads = LIKELY
) -> Demand | None:
    """Return what a request needs, by its body; None if that is no request to a model.

    `form` is that of the body, if it is known better than its fields tell.

    >>> need = demand_of({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20})
    >>> need.input_bound, need.input_estimate, need.input_least, need.output_bound, need.kind
    (107, 15, 4, 20, 'chat text')
    """
    if not isinstance(body, Mapping):
        return None
    fields = cast("Mapping[str, Any]", body)
    form = form or form_of(fields)
    if form is None:
        return None
    tally, rest = _Tally(), _Tally()
    for name, part in fields.items():
        _count(part, tally if name in TEXT_FIELDS else rest)
    text = tally.joined()
    size = _size(text)
    messages, tools = _length(fields.get("messages", fields.get("input"))), _length(fields.get("tools"))
    answers = _positive(fields.get("n")) or 1

    def tokens(of_text: int, overheads: Overheads) -> int:
        media = tally.images * overheads.image + tally.files * overheads.file
        media = max(media, tally.images * overheads.image + tally.file_bytes // overheads.file_bytes)
        for_tools = tools and overheads.tools + tools * overheads.tool
        return min(of_text + media + for_tools + overheads.call + messages * overheads.message, MAX_COUNT)

    output = next((most for name in OUTPUT_FIELDS[form] if (most := _positive(fields.get(name)))), None)
    return Demand(
        input_bound=tokens(size + _size(rest.joined()), bound),
        input_estimate=tokens(-(-size // BYTES_PER_TOKEN), likely),
        output_bound=0 if form == "embeddings" else None if output is None else min(output * answers, MAX_COUNT),
        answers=answers,
        # Of embeddings, the window is that of each input.
        input_least=0 if form == "embeddings" else min(size // MOST_BYTES_PER_TOKEN, MAX_COUNT),
        kind=_kind(form, fields, tally, text, size),
    )


def with_max_output(body: object, tokens: int, *, form: Form | None = None) -> Any:
    """Return a copy of a body that bounds each answer by so many tokens; what is no request is returned."""
    if not isinstance(body, Mapping):
        return body
    fields = dict(cast("Mapping[str, Any]", body))
    names = OUTPUT_FIELDS[form or form_of(fields) or "embeddings"]
    return fields | {names[0]: tokens} if names else fields


def _kind(form: Form, fields: Mapping[str, Any], tally: _Tally, text: str, size: int) -> str:
    """Name the kind of a body: bodies of one kind have about as many bytes to a token."""
    width = size / max(len(text), 1)
    sample = text[:SAMPLE]
    if width > 2:
        script = "wide"
    elif width > 1.01:
        script = "accented"
    else:
        script = "figures" if _figures(sample) > 0.25 * len(sample) else "text"
    marks = [form, script]
    marks += [what for what, is_there in (("images", tally.images), ("files", tally.files)) if is_there]
    marks += [name for name in ("tools", "thinking", "reasoning", "reasoning_effort") if fields.get(name)]
    return " ".join(marks)


def _count(part: Any, tally: _Tally) -> None:
    """Count the text and the media of a part of a body; without recursion, as it may be nested to any depth."""
    left: list[Any] = [part]
    texts = tally.texts
    while left:
        one = left.pop()
        if isinstance(one, str):
            texts.append(one)
        elif one is None or isinstance(one, bool):
            continue
        elif isinstance(one, (int, float)):
            texts.append(str(one))
        elif isinstance(one, (dict, Mapping)):  # A dict is told at once, an abstract class by a search.
            table = cast("Mapping[Any, Any]", one)
            medium = MEDIA.get(str(table["type"])) if "type" in table else None
            if medium is None or isinstance(table.get("properties"), Mapping):
                texts.extend(map(str, table))
                left.extend(table.values())
            else:
                _count_medium(table, medium, tally, left.append)
        elif isinstance(one, (list, Sequence)) and not isinstance(one, bytes | bytearray):
            left.extend(cast("Sequence[Any]", one))
        else:
            texts.append(str(one))


def _count_medium(part: Mapping[Any, Any], medium: str, tally: _Tally, count: Callable[[Any], None]) -> None:
    """Count an image or a file: its content is data, and what else it holds, such as a title, is text."""
    if medium == "image":
        tally.images += 1
    else:
        tally.files += 1
    for text in _strings(part):
        if _is_data(text):
            tally.file_bytes += (medium == "file") * len(text) * 3 // 4
        else:
            count(text)


def _is_data(text: str) -> bool:
    """Tell whether a text is data in base64: a data URL, or long and without any space."""
    return text.startswith("data:") or (len(text) > 256 and " " not in text[:1024] and text[:1024].isascii())


def _strings(part: Mapping[Any, Any]) -> Iterator[str]:
    left: list[Any] = [part]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            left.extend(cast("Mapping[Any, Any]", one).values())
        elif isinstance(one, list | tuple):
            left.extend(cast("list[Any]", one))


def _length(part: object) -> int:
    return len(cast("list[Any]", part)) if isinstance(part, list | tuple) else int(part is not None)


def _positive(count: object) -> int | None:
    return min(count, MAX_COUNT) if type(count) is int and count > 0 else None
