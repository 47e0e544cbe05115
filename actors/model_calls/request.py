"""A call of a model as its caller wrote it: the form of its protocol, and the body in that form. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

import msgspec

from actors.tariffs.estimate import OUTPUT_FIELDS, demand_of, with_max_output
from actors.tariffs.estimate import Form as Form

if TYPE_CHECKING:
    from actors.tariffs.demand import Demand

FORMS: tuple[Form, ...] = get_args(Form)
CONTENT_OF: dict[Form, str] = {"chat": "messages", "responses": "input", "messages": "messages", "embeddings": "input"}
"""The field that holds what the model is given."""


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a model: the `body` of the protocol `form`, as it would be posted, with or without a `model` in it.

    `headers` go to a provider that speaks this form, such as "anthropic-beta".

    Raises TypeError or ValueError for what could never be sent.

    >>> ModelRequest(form="chat", body={"messages": [{"role": "user", "content": "Hello"}]}).max_output
    >>> ModelRequest(form="messages", body={"messages": [], "max_tokens": 100})
    Traceback (most recent call last):
    ValueError: messages of a call of a model must hold at least one message
    """

    form: Form
    body: dict[str, Any]
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {self.form!r:.100}")
        if not isinstance(self.body, dict):
            raise TypeError(f"body of a call of a model must be a dict, got {self.body!r:.100}")
        self._check_content()
        self._check_output()

    def _check_content(self) -> None:
        field = CONTENT_OF[self.form]
        content = self.body.get(field)
        if field == "messages":
            if not isinstance(content, list | tuple):
                raise TypeError(f"messages of a call of a model must be a list, got {content!r:.100}")
            if not content:
                raise ValueError("messages of a call of a model must hold at least one message")
        elif content is None and "prompt" not in self.body:
            raise ValueError(f'"{field}" of a call of a model is missing')

    def _check_output(self) -> None:
        for field in OUTPUT_FIELDS[self.form]:
            value = self.body.get(field)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{field} must be a whole number of tokens >= 1, got {value!r:.100}")

    @property
    def model(self) -> str | None:
        """The model that the body names."""
        model = self.body.get("model")
        return model if isinstance(model, str) else None

    @property
    def streams(self) -> bool:
        """Whether the body asks for a stream."""
        return self.body.get("stream") is True

    @property
    def max_output(self) -> int | None:
        """The most tokens of the answer; None if the body does not bound them."""
        bounds = (self.body.get(field) for field in OUTPUT_FIELDS[self.form])
        return next((bound for bound in bounds if bound is not None), None)


def model_request(given: object) -> ModelRequest:
    """Return what is asked of a model: a `ModelRequest`, its fields as a dict, or the body of a chat completion.

    Raises TypeError or ValueError if it is none of them.

    >>> model_request({"messages": [{"role": "user", "content": "Hello"}]}).form
    'chat'
    >>> model_request({"form": "embeddings", "body": {"input": "Hello"}}).form
    'embeddings'
    """
    if isinstance(given, ModelRequest):
        return given
    if isinstance(given, dict):
        fields = cast("dict[str, Any]", given)
        if fields.keys() == {"form", "body"}:
            return ModelRequest(form=fields["form"], body=fields["body"])
        if "messages" in fields:
            return ModelRequest(form="chat", body=fields)
    raise TypeError(
        f"the input of a call of a model must be a ModelRequest, a dict with form and body, or the body of a chat "
        f"completion with messages, got {given!r:.100}"
    )


def demand_of_input(given: object) -> Demand | None:
    """Return what a call needs by its input, a `ModelRequest` or a body; None if it is no request to a model."""
    if isinstance(given, ModelRequest):
        return demand_of(given.body, form=given.form)
    return demand_of(given)


def with_output_bound(given: object, tokens: int) -> Any:
    """Return an input, a `ModelRequest` or a body, that bounds each answer by so many tokens; other inputs as they are.

    >>> asked = ModelRequest(form="messages", body={"messages": [{"role": "user", "content": "Hello"}]})
    >>> with_output_bound(asked, 50).max_output, with_output_bound({"messages": []}, 50)
    (50, {'messages': [], 'max_completion_tokens': 50})
    """
    if isinstance(given, ModelRequest):
        return msgspec.structs.replace(given, body=with_max_output(given.body, tokens, form=given.form))
    return with_max_output(given, tokens)
