"""The request forms a fake server speaks: for each, how it is read and how its answers are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actors.fake.breaking import chat_error_event
from actors.fake.chat_answers import chat_body, chat_events, chat_id
from actors.fake.chat_requests import read_chat
from actors.fake.embeddings import embeddings_body, embeddings_id, read_embeddings
from actors.fake.message_answers import message_body, message_error_event, message_events, message_id
from actors.fake.message_requests import read_messages
from actors.fake.response_answers import response_body, response_error_event, response_events, response_id
from actors.fake.response_requests import read_responses

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.fake.asked import Asked, Form
    from actors.fake.made import Events, Made


class ReadForm(Protocol):
    """Reads the body of a request. Raises `RequestRefused` for one that is none."""

    def __call__(self, body: dict[str, Any], *, strict: bool) -> Asked: ...


class WrittenForm(msgspec.Struct, frozen=True, kw_only=True):
    """One form: it reads requests, and writes bodies, events, and the event that ends a stream by an error."""

    name: Form
    read: ReadForm
    body: Callable[[Made], Any]
    identity: Callable[[Made], str]
    events: Callable[[Made], Events] | None = None
    error_event: Callable[[Made, int], bytes] = lambda _made, _number: b""


FORMS: dict[Form, WrittenForm] = {
    "chat": WrittenForm(
        name="chat",
        read=read_chat,
        body=chat_body,
        identity=chat_id,
        events=chat_events,
        error_event=chat_error_event,
    ),
    "messages": WrittenForm(
        name="messages",
        read=read_messages,
        body=message_body,
        identity=message_id,
        events=message_events,
        error_event=message_error_event,
    ),
    "responses": WrittenForm(
        name="responses",
        read=read_responses,
        body=response_body,
        identity=response_id,
        events=response_events,
        error_event=response_error_event,
    ),
    "embeddings": WrittenForm(name="embeddings", read=read_embeddings, body=embeddings_body, identity=embeddings_id),
}
