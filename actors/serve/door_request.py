"""What a client asks for, read from its headers and its body. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.limits.class_queue import Priority, lower, priority_named
from actors.model_calls.request import Form, ModelRequest
from actors.serve.problems import Problem
from actors.supervisor.options import RequestOptions  # noqa: TC001 - as above.

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIORITY_HEADER = "x-understudy-priority"
"""Where a client says in which class its request waits."""
TIMEOUT_HEADER = "x-understudy-timeout"
"""Where a client says for how many seconds it waits."""
SDK_TIMEOUT_HEADERS = ("x-stainless-timeout", "x-stainless-read-timeout")
"""Where the SDKs of Anthropic and OpenAI say for how many seconds of silence they wait."""
MAX_TIMEOUT = 86_400.0
HANDED_ON = ("anthropic-beta", "openai-beta")
"""The headers that go on to the provider; no others do."""
NO_HEADERS: Mapping[str, str] = {}
TRACE_HEADERS = ("traceparent", "tracestate")
KEY_HEADER = "idempotency-key"
STORING_FIELDS = {
    "previous_response_id": "send the whole conversation as input",
    "conversation": "send the whole conversation as input",
    "prompt": "send the instructions themselves",
}
"""Fields of Responses that need conversations to be stored, and what to do instead."""


class DoorRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request: what is asked of which service, and how the answer is wanted.

    `name` is what the client calls the model; the answer says it again. `timeout` is in seconds, and so is `silence`,
    after which the client gives up.
    """

    request: ModelRequest
    name: str
    service: str
    options: RequestOptions
    account: str | None
    timeout: float
    silence: float
    key: str | None
    streams: bool
    wants_usage: bool

    @property
    def form(self) -> Form:
        """The protocol of the request."""
        return self.request.form


def model_named(body: dict[str, Any]) -> str:
    """Return the model that a body names. Raises `Problem`."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise Problem(400, '"model" must be the name of a model, or "auto"', code="missing_model", param="model")
    return name


def request_in(form: Form, body: dict[str, Any], headers: Mapping[str, str] = NO_HEADERS) -> ModelRequest:
    """Return the request of a body, without what concerns only this door. Raises `Problem` for what is none."""
    if form == "responses":
        _refuse_storing(body)
    sent = {field: value for field, value in body.items() if field not in {"model", "stream", "stream_options"}}
    try:
        return ModelRequest(
            form=form, body=sent, headers={name: headers[name] for name in HANDED_ON if name in headers}
        )
    except (TypeError, ValueError) as error:
        raise Problem(400, str(error), code="invalid_request") from error


def _refuse_storing(body: dict[str, Any]) -> None:
    for field, instead in STORING_FIELDS.items():
        if body.get(field) is not None:
            message = f'"{field}" needs conversations to be stored, which this door does not do; {instead}'
            raise Problem(400, message, code="not_stored", param=field)
    if body.get("background") is True:
        message = "responses are not stored here, so none can be made in the background; wait for it, or stream it"
        raise Problem(400, message, code="not_stored", param="background")


def wants_stream(body: dict[str, Any]) -> bool:
    """Return whether a body asks for a stream. Raises `Problem` if it says neither yes nor no."""
    streams = body.get("stream")
    if streams is not None and not isinstance(streams, bool):
        raise Problem(400, '"stream" must be true or false', code="invalid_request", param="stream")
    return bool(streams)


def wants_usage(form: Form, body: dict[str, Any]) -> bool:
    """Return whether the stream of a body ends with the usage: other protocols than chat have it in any case."""
    options = body.get("stream_options")
    return form != "chat" or (
        isinstance(options, dict) and cast("dict[str, Any]", options).get("include_usage") is True
    )


def timeout_in(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a client waits, or None if it does not say. Raises `Problem` for no number of seconds."""
    if (given := headers.get(TIMEOUT_HEADER)) is None:
        return None
    if (seconds := _seconds(given)) is None:
        raise Problem(400, f"{TIMEOUT_HEADER} must be > 0 seconds, at most a day, got {given!r:.100}", code="timeout")
    return seconds


def silence_in(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of silence after which the SDK of a client gives up, or None if it does not say.

    >>> silence_in({"x-stainless-read-timeout": "20"}), silence_in({"x-stainless-timeout": "NOT_GIVEN"})
    (20.0, None)
    """
    for name in SDK_TIMEOUT_HEADERS:
        if name in headers and (seconds := _seconds(headers[name])) is not None:
            return seconds
    return None


def _seconds(given: str) -> float | None:
    try:
        seconds = float(given)
    except ValueError:
        return None
    return seconds if 0 < seconds <= MAX_TIMEOUT else None


def priority_in(headers: Mapping[str, str], most: Priority | None) -> Priority:
    """Return the class in which a request waits; `most` is the highest that it may have, and its own if it says none.

    Raises `Problem` for no class, and for a higher one.
    """
    given = headers.get(PRIORITY_HEADER, most or "normal").strip().lower()
    if (priority := priority_named(given)) is None:
        message = f'{PRIORITY_HEADER} must be "high", "normal" or "low", got {given!r:.100}'
        raise Problem(400, message, code="priority")
    if most is not None and lower(priority, most) != priority:
        message = f"{PRIORITY_HEADER}: the key allows {most!r} at most, got {priority!r}; ask for that, or leave it out"
        raise Problem(403, message, code="priority", should_retry=False)
    return priority


def trace_in(headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return the headers that name the trace of a client (W3C Trace Context), or None if it has none.

    >>> trace_in({"tracestate": "a=b"}), trace_in({"traceparent": "00-1-2-01", "accept": "*/*"})
    (None, {'traceparent': '00-1-2-01'})
    """
    if "traceparent" not in headers:
        return None
    return {name: headers[name] for name in TRACE_HEADERS if name in headers}


def key_in(headers: Mapping[str, str]) -> str | None:
    """Return the idempotency key of a request, or None. Raises `Problem` for an empty one."""
    key = headers.get(KEY_HEADER)
    if key is not None and not key.strip():
        raise Problem(400, "Idempotency-Key must not be empty", code="idempotency_error", should_retry=False)
    return key
