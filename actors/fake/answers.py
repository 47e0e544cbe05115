"""Decides what a fake model answers: text, reasoning, tool calls, a refusal, each made of pieces of one token. Pure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from actors.fake.draws import drawn
from actors.fake.schemas import example_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.fake.asked import Asked, AskedTool
    from actors.fake.config import FakeModel, ScriptedAnswer
    from actors.fake.draws import Draw

Finish: TypeAlias = Literal["stop", "length", "tools", "content_filter", "refusal", "stop_sequence"]
REFUSAL = "I'm sorry, but I can't help with that."
PIECE_CHARACTERS = 4
WORDS = (  # noqa: SIM905 - a list of so many words reads worse.
    " the of and to in is that it for as with on be at by this had not are but from or have an they which one you were"
    " all her she there would their we him been has when who will no more if out so said what up its about into than"
    " them can only other new some could time these two may then do first any my now such like our over man me even"
    " most made after also did many before must through back years where much your way well down should because each"
    " just those people how too little state good very make world still own see men work long get here between both"
    " life being under never day same another know while last might us great old year off come since against go came"
    " right used take three"
).split()


def _run_of_words() -> list[str]:
    chosen = random.Random(5)  # Only the look of texts hangs on it; the seed of a server decides where one begins.
    words = [f" {chosen.choice(WORDS)}" for _ in range(4096)]
    return words * 2


RUN = _run_of_words()
HALF = len(RUN) // 2


class ToolCallMade(msgspec.Struct, frozen=True):
    """A call of a tool: its arguments as pieces of JSON, or of plain text if the tool is `custom`."""

    id: str
    name: str
    pieces: Sequence[str]
    custom: bool = False

    @property
    def arguments(self) -> str:
        """The arguments as one text."""
        return "".join(self.pieces)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Each piece is a token; a tool call counts one more for its name."""

    reasoning: Sequence[str] = ()
    text: Sequence[str] = ()
    refusal: Sequence[str] = ()
    tools: tuple[ToolCallMade, ...] = ()
    finish: Finish = "stop"
    stop_sequence: str | None = None

    @property
    def tokens(self) -> int:
        """The tokens of output, those of reasoning included."""
        return len(self.reasoning) + len(self.text) + len(self.refusal) + sum(1 + len(one.pieces) for one in self.tools)


def decide_answer(asked: Asked, model: FakeModel, *, draw: Draw, odd: str | None, choice: int = 0) -> Answer:
    """Return the answer of one choice of a request; `odd` is how a fault wants it, if one does."""
    scripted = _scripted(asked, model)
    answer = _whole(asked, model, scripted, odd=odd, draw=draw, choice=choice)
    answer = _stopped(answer, asked.stop)
    allowed = asked.max_tokens if asked.max_tokens is not None else model.max_output
    if odd == "length":
        allowed = min(allowed, max(1, answer.tokens // 2))
    return shortened(answer, min(allowed, model.max_output))


def _scripted(asked: Asked, model: FakeModel) -> ScriptedAnswer | None:
    if asked.tool_results:
        return next((one for one in model.answers if one.kind != "tool" and one.contains in asked.last_text), None)
    return next((one for one in model.answers if one.contains in asked.last_text), None)


def _whole(
    asked: Asked, model: FakeModel, scripted: ScriptedAnswer | None, *, odd: str | None, draw: Draw, choice: int
) -> Answer:
    """Return the answer before its length is bounded. There are five cases."""
    kind = odd if odd is not None and odd != "length" else (scripted.kind if scripted is not None else "text")
    told = scripted.text if scripted is not None else ""
    # 1. What no caller wishes for.
    if kind == "refusal":
        return Answer(refusal=pieces_of(told or REFUSAL), finish="refusal")
    if kind == "content_filter":
        return Answer(text=_words(draw, f"text {choice}", 4), finish="content_filter")
    if kind == "empty":
        return Answer()
    reasoning: Sequence[str] = ()
    if asked.reasoning and "reasoning" in model.abilities:
        count = int(drawn(model.reasoning_tokens, draw, f"reasoning {choice}"))
        reasoning = _words(draw, f"reasoning {choice}", count)
    # 2. A call of tools.
    called = () if kind == "not_json" else tools_called(asked, model, scripted, draw=draw)
    if called:
        made = tuple(_made(tool, told, draw, f"{choice} {number}") for number, tool in enumerate(called))
        return Answer(reasoning=reasoning, tools=made, finish="tools")
    # 3. JSON by a schema.
    if asked.schema is not None and kind != "not_json" and not told:
        text = msgspec.json.encode(example_of(asked.schema, draw) or {}).decode()
        return Answer(reasoning=reasoning, text=pieces_of(text))
    # 4. A text that is told, or that of the request itself.
    if kind == "echo" or told:
        return Answer(reasoning=reasoning, text=pieces_of(told or asked.last_text))
    # 5. Words.
    count = max(1, round(drawn(model.output_tokens, draw, f"length {choice}")))
    return Answer(reasoning=reasoning, text=_words(draw, f"text {choice}", count))


def tools_called(
    asked: Asked, model: FakeModel, scripted: ScriptedAnswer | None, *, draw: Draw
) -> tuple[AskedTool, ...]:
    """Return the tools that are called, none if the model answers in words.

    A tool that the request names is called. If it must call one, it is that after the tools which have results. If it
    may, tools are called by `tool_share`, and not again once there are results, so that every conversation ends.
    """
    if not asked.tools or asked.tool_choice == "none" or "tools" not in model.abilities:
        return ()
    names = {tool.name: tool for tool in asked.tools}
    if asked.tool_choice.startswith("="):
        return (names.get(asked.tool_choice[1:], asked.tools[0]),)
    if scripted is not None and scripted.kind == "tool":
        return (names.get(scripted.tool, asked.tools[0]),)
    if asked.tool_choice == "required":
        return (asked.tools[min(asked.tool_results, len(asked.tools) - 1)],)
    if asked.tool_results or scripted is not None or draw.share("tool") >= model.tool_share:
        return ()
    return asked.tools[: max(1, model.parallel_tools if asked.parallel else 1)]


def _made(tool: AskedTool, told: str, draw: Draw, number: str) -> ToolCallMade:
    if tool.custom:
        arguments = told or "".join(_words(draw, f"tool {number}", 8)).strip()
    else:
        arguments = told or msgspec.json.encode(example_of(tool.schema, draw) or {}).decode()
    identity = draw.digest(f"call {number}").hex()[:24]
    return ToolCallMade(f"call_{identity}", tool.name, pieces_of(arguments), tool.custom)


def _words(draw: Draw, purpose: str, count: int) -> list[str]:
    start = draw.below(purpose, HALF)
    words = RUN[start : start + count]
    while len(words) < count:
        words += RUN[: count - len(words)]
    if words:
        words[0] = words[0].strip().capitalize()
    return words


def pieces_of(text: str) -> list[str]:
    """Cut a text into pieces of one token.

    >>> pieces_of("strawberry")
    ['stra', 'wber', 'ry']
    """
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]


def _stopped(answer: Answer, stop: tuple[str, ...]) -> Answer:
    """End the text before the first stop sequence."""
    if not stop or not answer.text:
        return answer
    whole = "".join(answer.text)
    ends = [(at, one) for one in stop if one and (at := whole.find(one)) >= 0]
    if not ends:
        return answer
    end, found = min(ends)
    kept = pieces_of(whole[:end])
    return msgspec.structs.replace(answer, text=kept, finish="stop_sequence", stop_sequence=found)


def shortened(answer: Answer, most: int) -> Answer:
    """Return the answer cut off after so many tokens, reasoning first.

    >>> shortened(Answer(text=["a", "b", "c"]), 2)
    Answer(reasoning=(), text=['a', 'b'], refusal=(), tools=(), finish='length', stop_sequence=None)
    """
    if answer.tokens <= most:
        return answer
    left = most - len(answer.reasoning[:most])
    text = answer.text[:left]
    refusal = answer.refusal[:left]
    left -= len(text) + len(refusal)
    tools: list[ToolCallMade] = []
    for one in answer.tools:
        if left <= 0:
            break
        tools.append(msgspec.structs.replace(one, pieces=one.pieces[: left - 1]))
        left -= 1 + len(tools[-1].pieces)
    return msgspec.structs.replace(
        answer,
        reasoning=answer.reasoning[:most],
        text=text,
        refusal=refusal,
        tools=tuple(tools),
        finish="length",
    )


def joined(pieces: Sequence[Any]) -> str:
    """Return pieces as one text."""
    return "".join(pieces)
