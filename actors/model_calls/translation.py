"""A request in a form that its provider speaks, and the answer in the form of the request. Pure.

A form that is spoken is kept. Between forms a table decides what becomes of each field (field_table.py): nothing is
dropped in silence, and what cannot be said in the other form is `NotExpressible`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.model_calls.answer import MalformedAnswer, fields_of, read_answer
from actors.model_calls.answer_writers import usage_of, write_answer
from actors.model_calls.field_table import NotExpressible, Remarks, field_table, sort_fields
from actors.model_calls.request import ModelRequest
from actors.model_calls.request_readers import read_request
from actors.model_calls.request_writers import write_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.model_calls.request import Form


class Translation(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it goes to a provider: `request` is in a form that it speaks, `asked` is what the caller wrote.

    `told` says what is only nearly the same, and what was left out, such as "seed: approximated (left out)"; it is
    empty if the form was kept.
    """

    asked: ModelRequest
    request: ModelRequest
    told: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether the request went out in the form in which it came."""
        return self.request.form == self.asked.form

    def answer(self, body: object) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the answer of the provider as a body of the caller's form, and all that must be told.

        Raises `MalformedAnswer` for what is no answer, or cannot be said in the caller's form, such as a call of a tool
        whose arguments are no JSON.
        """
        given = fields_of(body, "the answer")
        if self.is_kept:
            return given, self.told
        remarks = Remarks(self.told)
        try:
            answer = read_answer(self.request.form, given)
        except RecursionError as error:
            raise MalformedAnswer("what is nested too deep") from error
        form = self.asked.form
        if form == "messages" and self.request.body.get("stop") and answer.finish_reason == "stop":
            remarks.approximated("stop_sequence", "whether one ended the answer is not known")
        return write_answer(form, answer, usage_of(self.request.form, answer), remarks), remarks.told


def translated(request: ModelRequest, forms: Sequence[Form], *, max_output: int | None = None) -> Translation:
    """Return a request in one of the forms that a provider speaks: its own, or else the first that can say it.

    `max_output` is how many tokens the answer may have if the request does not bound it and the form must. Raises
    `NotExpressible` if no form can say it.

    >>> asked = ModelRequest(form="chat", body={"messages": [{"role": "user", "content": "Hello"}], "seed": 7})
    >>> sent = translated(asked, ["messages"], max_output=50)
    >>> sent.request.body["messages"]
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'Hello'}]}]
    >>> sent.told
    ('seed: approximated (left out)',)
    """
    if request.form in forms:
        return Translation(asked=request, request=request)
    reason = NotExpressible(f"the form {request.form!r} is not translated")
    for form in forms:
        if form in field_table().fields and request.form in field_table().fields:
            try:
                return _translated(request, form, max_output)
            except NotExpressible as error:
                reason = error
    raise reason


def _translated(request: ModelRequest, to: Form, max_output: int | None) -> Translation:
    remarks = Remarks()
    try:
        fields, unchanged = sort_fields(request.body, request.form, to, remarks)
        asked = read_request(request.form, request.body, fields, remarks)
        if asked.max_output is None:
            asked.max_output = max_output
        body = {**unchanged, **write_request(to, asked, remarks)}
        if request.streams:
            body["stream"] = True
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise (
            error if isinstance(error, NotExpressible) else NotExpressible(f"what is no JSON: {error!s:.200}")
        ) from error
    return Translation(asked=request, request=ModelRequest(form=to, body=body), told=remarks.told)
