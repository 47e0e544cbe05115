"""Applies the faults that strike a request to the reply it would have had. Pure."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from actors.fake.faults import (
    FakeCut,
    FakeErrorEvent,
    FakeErrorInside,
    FakeGarbage,
    FakeLostReply,
    FakeSlowness,
    FakeStall,
)
from actors.fake.refusals import error_body
from actors.fake.wire import JSON, FakeReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.fake.draws import Draw
    from actors.fake.faults import AnyFault
    from actors.fake.made import Events, Made

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"


def break_reply(
    reply: FakeReply, struck: Iterable[AnyFault], *, error_event: Callable[[int], bytes], draw: Draw
) -> FakeReply:
    """Return the reply as the faults leave it; `error_event` is the form's way to end a stream by an error."""
    for fault in struck:
        match fault:
            case FakeSlowness(factor=factor, extra=extra):
                reply.latency = reply.latency * factor + extra
                reply.speed /= factor
            case FakeStall():
                _stall(reply, fault)
            case FakeErrorEvent(after_events=after) if reply.events is not None:
                reply.events = _ended_by(reply.events, after, error_event)
                reply.ends_broken = True
            case FakeErrorInside(status=status) if reply.made is not None:
                body = error_body(reply.made.dialect, status, message="Upstream provider error")
                reply.body, reply.events, reply.rates = msgspec.json.encode(body), None, None
                reply.headers = [JSON, *reply.headers[1:]]
            case FakeGarbage(form=form):
                _spoil(reply, form)
            case FakeCut():
                _cut(reply, fault, draw)
            case FakeLostReply():
                reply.cut_at = -1
            case _:
                pass
    return reply


def _stall(reply: FakeReply, fault: FakeStall) -> None:
    if fault.at == "first_byte":
        reply.stall = fault.seconds
    else:
        reply.stalls_after = (fault.after_events, fault.seconds)


def _ended_by(events: Events, after: int, error_event: Callable[[int], bytes]) -> Events:
    tokens, sent = 0, 0
    for tokens, data in islice(events, after):
        yield tokens, data
        sent += 1
    yield tokens, error_event(sent)


def _spoil(reply: FakeReply, form: str) -> None:
    whole = reply.body if reply.events is None else b"".join(data for _, data in reply.events)
    reply.events = None
    match form:
        case "html":
            reply.body = HTML
            reply.headers = [(b"content-type", b"text/html"), *reply.headers[1:]]
        case "half_json":
            reply.body = whole[: max(1, len(whole) // 2)]
        case "wrong_shape":
            reply.body = b'{"result":[{"answer":"see above"}]}'
        case "empty":
            reply.body = b""
        case _:
            reply.body = bytes(range(256))


def _cut(reply: FakeReply, fault: FakeCut, draw: Draw) -> None:
    if fault.at_byte is not None:
        reply.cut_at = fault.at_byte
        return
    if reply.events is not None:
        events = list(reply.events)
        size = sum(len(data) for _, data in events)
        reply.events = iter(events)
    else:
        size = len(reply.body)
    part = draw.share("cut") if fault.part is None else fault.part
    reply.cut_at = min(size - 1, int(part * size)) if size else 0


def chat_error_event(made: Made, _: int) -> bytes:
    """Return how a stream of chat completions ends by an error."""
    if made.dialect_name == "openrouter":
        error = {"code": 502, "message": "Provider disconnected"}
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        body = {
            "id": f"gen-{made.id}",
            "object": "chat.completion.chunk",
            "created": made.created,
            "model": made.model.name,
            "provider": "Fake",
            "error": error,
            "choices": [choice],
        }
        return b"data: %b\n\n" % msgspec.json.encode(body)
    message = "The server had an error processing your request. Sorry about that!"
    body = error_body(made.dialect, 500, message=message)
    return b"data: %b\n\n" % msgspec.json.encode(body)
