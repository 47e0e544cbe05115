"""Answers that are paid and of no use: empty, filtered, refused, or no JSON although that was asked for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from actors.errors.families import BadAnswer
from actors.model_calls.answer import is_json

if TYPE_CHECKING:
    from actors.errors.families import BadAnswerReason
    from actors.model_calls.answer import ModelAnswer
    from actors.model_calls.request import ModelRequest

WHAT_IS_WRONG: dict[BadAnswerReason, str] = {
    "filtered": "filtered the answer",
    "refused": "refused to answer",
    "empty": "gave an empty answer",
    "not_json": "gave an answer that is no JSON, although the request asks for it",
}


def bad_answer_of(request: ModelRequest, answer: ModelAnswer, *, provider: str) -> BadAnswer | None:
    """Return the error for an answer that is of no use; None if it is of use.

    An answer that was cut off by its bound is of use as far as it goes, unless that is nothing, or no JSON.
    """
    reason = _reason(request, answer)
    if reason is None:
        return None
    return BadAnswer(f"{provider!r} {WHAT_IS_WRONG[reason]}", reason=reason, provider=provider, said=answer.refusal)


def _reason(request: ModelRequest, answer: ModelAnswer) -> BadAnswerReason | None:
    if request.form == "embeddings":
        return None
    if answer.finish_reason == "content_filter":
        return "filtered"
    if answer.refusal:
        return "refused"
    if answer.is_empty:
        return "empty"
    if answer.text and not answer.tool_calls and wants_json(request) and not is_json(answer.text):
        return "not_json"
    return None


def wants_json(request: ModelRequest) -> bool:
    """Tell whether a request asks for an answer in JSON.

    >>> from actors.model_calls import ModelRequest
    >>> body = {"messages": [{}], "response_format": {"type": "json_object"}}
    >>> wants_json(ModelRequest(form="chat", body=body))
    True
    """
    match request.form:
        case "chat":
            wanted = request.body.get("response_format")
        case "responses":
            wanted = _field(request.body.get("text"), "format")
        case "messages":
            wanted = _field(request.body.get("output_config"), "format") or request.body.get("output_format")
        case "embeddings":
            return False
    return _field(wanted, "type") in ("json_object", "json_schema")


def _field(value: object, name: str) -> Any:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
