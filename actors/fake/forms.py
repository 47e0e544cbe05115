"""The request forms a fake server speaks: for each, how it is read and how its answers are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actors.fake.breaking import chat_error_event
from actors.fake.chat_answers import chat_body, chat_events, chat_id
from actors.fake.chat_requests import read_chat

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
    error_event: Callable[[Made], bytes] = lambda _: b""


FORMS: dict[Form, WrittenForm] = {
    "chat": WrittenForm(
        name="chat",
        read=read_chat,
        body=chat_body,
        identity=chat_id,
        events=chat_events,
        error_event=chat_error_event,
    ),
}
