"""Counts the requests that a client sends for one call: an SDK that retries, or follows redirects, hides them."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from actors.errors.error_tree import attribute

Client = TypeVar("Client")


class WireCalls:
    """How many requests were sent for one call, by the clients that are counted."""

    __slots__ = ("_around", "count")

    def __init__(self) -> None:
        self.count = 0
        self._around = _CALL.get()
        _CALL.set(self)

    def end(self) -> None:
        """Count no more of what its caller sends; the threads and tasks of the call are counted on."""
        _CALL.set(self._around)  # A token would fail in a coroutine that is closed from elsewhere.


_CALL: ContextVar[WireCalls | None] = ContextVar("wire_calls", default=None)
"""The call that is under way in this context; the threads and tasks that it begins are in it too."""


def count_wire_calls(client: Client) -> Client:
    """Have every request of a client counted for the call that it is sent for, and return the client.

    `client` is one of httpx or httpx2, or an SDK around one, as those of openai and anthropic are; each may be sync or
    async. Its requests count in the `wire_calls` of a `FunctionTransport` whose function uses it: also those of its
    copies (`with_options`), of retries and of redirects. Raises TypeError for another client: state its `wire_calls`
    in the reply.

    >>> import httpx
    >>> client = count_wire_calls(httpx.AsyncClient())
    >>> client is count_wire_calls(client)
    True
    """
    http_client = client if _hooks_of(client) is not None else attribute(client, "_client")
    hooks = _hooks_of(http_client)
    if hooks is None:
        raise TypeError(
            f"the requests of {client!r:.100} cannot be counted; give a client of httpx, httpx2, openai or anthropic, "
            "or state wire_calls in the ProviderReply"
        )
    hook = _count_async if inspect.iscoroutinefunction(attribute(http_client, "send")) else _count
    if hook not in hooks:
        hooks.append(hook)
    return client


def _hooks_of(client: object) -> list[Any] | None:
    """Return the list of what a client calls before each request; None if it has none."""
    hooks = attribute(client, "event_hooks")
    found = cast("dict[str, Any]", hooks).get("request") if isinstance(hooks, dict) else None
    return cast("list[Any]", found) if isinstance(found, list) else None


def _count(_request: object) -> None:
    call = _CALL.get()
    if call is not None:
        call.count += 1


async def _count_async(request: object) -> None:
    _count(request)
