"""The metrics at the front door: told to a scraper on this machine, and to no other, whatever keys it has."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors.serve.problems import Problem
from actors.serve.visitors import check_local

if TYPE_CHECKING:
    from actors.observing import PrometheusMetrics


class MetricsPath:
    """The path of the metrics."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            check_address((scope.get("client") or ("",))[0])
            check_local(headers, origins=frozenset())
        except Problem as problem:
            body = f"{problem}\n".encode()
            kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": problem.status, "headers": kind})
            await send({"type": "http.response.body", "body": body})
            return
        await self._metrics(scope, receive, send)


def check_address(address: str) -> None:
    """Raise `Problem` unless a connection comes from this machine; its `Host` alone is what a client likes to say."""
    with suppress(ValueError):
        if ipaddress.ip_address(address).is_loopback:
            return
    raise Problem(403, "metrics are told to this machine alone; scrape them at its loopback", code="host")
