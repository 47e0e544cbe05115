"""Metrics at the front door: for this machine alone."""

from __future__ import annotations

from typing import Any

import pytest

from actors.serve.metrics_path import MetricsPath


class Metrics:
    """Answers as an application does that has metrics."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def status_of(client: tuple[str, int] | None, **headers: str) -> int:
    scope = {
        "type": "http",
        "method": "GET",
        "client": client,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    metrics: Any = Metrics()
    await MetricsPath(metrics)(scope, None, send)
    return int(answers[0]["status"])


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        (("127.0.0.1", 5), {"host": "127.0.0.1:8080"}, 200),
        (("::1", 5), {"host": "localhost"}, 200),
        (("10.0.0.7", 5), {"host": "localhost"}, 403),
        (("127.0.0.1", 5), {"host": "evil.example"}, 403),
        (("127.0.0.1", 5), {"host": "localhost", "origin": "https://evil.example"}, 403),
        (("testclient", 5), {"host": "localhost"}, 403),
        (None, {"host": "localhost"}, 403),
        (("127.0.0.1", 5), {}, 403),
    ],
)
async def test_metrics_are_told_to_this_machine_alone(
    client: tuple[str, int] | None, headers: dict[str, str], status: int
):
    assert await status_of(client, **headers) == status
