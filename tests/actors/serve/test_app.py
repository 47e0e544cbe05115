"""The door as an ASGI application: mounted or served, and what it leads where."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from actors.serve.app import DoorApp
from tests.actors.serve.doors import serving


@pytest.mark.parametrize("root", ["", "/door"])
async def test_it_answers_the_same_wherever_it_is_mounted(root: str) -> None:
    async with serving() as stage:
        mounted: Any = DoorApp(stage.door)
        if root:
            mounted = Starlette(routes=[Mount(root, app=mounted)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(mounted), base_url="http://127.0.0.1") as client:
            found = await client.get(f"{root}/v1/models")
            assert "swift" in [one["id"] for one in found.json()["data"]]
            assert (await client.head(f"{root}/healthz")).status_code == 200
            for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/files"), ("OPTIONS", "/healthz")):
                refused = await client.request(method, f"{root}{path}")
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_url")
            named = await client.post(f"{root}/v1/services/a/b", json={})
            assert (named.status_code, "'a/b'" in named.json()["error"]["message"]) == (404, True)


async def test_it_takes_note_of_the_start_and_the_end_of_its_server_and_speaks_no_websockets() -> None:
    async with serving() as stage:
        app, said = DoorApp(stage.door), list[str]()

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return {}

        async def send(message: dict[str, Any]) -> None:
            said.append(message["type"])

        await app({"type": "lifespan"}, receive, send)
        await app({"type": "websocket", "path": "/v1/models"}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
