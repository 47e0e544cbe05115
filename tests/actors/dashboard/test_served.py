"""The page beside a program, below the front door, and by the options of the commands."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import httpx
import pytest

from actors.command.bad_input import BadInput
from actors.command.live_page import PATH, MountedPage, PageOptions, live_page, page_options
from actors.command.top.links import SocketPlace
from actors.dashboard.server import Dashboard
from actors.dashboard.socket_folder import sockets
from actors.serve.app import DoorApp
from actors.serve.in_process import in_process_transport
from runtime import ActorSystem
from tests.actors.dashboard.stage import looked_at
from tests.actors.serve.doors import serving

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "o" * 20


async def said(port: int, *lines: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.real_time
async def test_a_page_is_served_beside_a_program_and_leaves_nothing_behind():
    async with looked_at("alder") as stage:
        async with Dashboard(stage.system, token=TOKEN) as page:
            port = int(page.address.rstrip("/").rpartition(":")[2])
            assert page.url == f"http://127.0.0.1:{port}/#{TOKEN}"
            assert b"200 OK" in await said(port, "GET / HTTP/1.1", f"Host: localhost:{port}")
            assert b" 421 " in await said(port, "GET / HTTP/1.1", "Host: evil.example")
            assert b" 401 " in await said(port, "GET /stream HTTP/1.1", f"Host: 127.0.0.1:{port}")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            asked = f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            writer.write(asked.encode())
            assert b"alder" in await reader.readuntil(b"alder")
        await reader.read()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not [name for name in stage.system.children if name.startswith("watcher-")]


@pytest.mark.parametrize("token", ["a token # of 100 % / ünicode?", "0123456789abcdef"])
def test_the_address_of_the_page_holds_any_token(token):
    page = Dashboard(ActorSystem("other", log=False), token=token)
    _, _, shown = page.url.partition("#")
    assert unquote(shown) == token
    assert quote(shown, safe="%") == shown


async def test_the_front_door_has_the_page_below_its_own_path(capsys):
    async with serving("swift") as stage, ActorSystem("other", log=False) as system:
        page = MountedPage(system, PageOptions(is_wanted=True, token=TOKEN))
        page.begin("http://127.0.0.1:8080", host="127.0.0.1", port=8080)
        page._gate.allow("127.0.0.1")  # As the transport of this test names itself.
        transport = in_process_transport(page.beside(DoorApp(stage.door)), library=httpx)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            told = {"x-understudy": "1"}
            html = await client.get(f"{PATH}/", headers=told)
            assert (html.status_code, "<title>understudy" in html.text) == (200, True)
            opened = await client.post(f"{PATH}/session", json={"token": TOKEN}, headers=told)
            assert opened.status_code == 204
            assert f"Path={PATH}" in opened.headers["set-cookie"]
            assert (await client.post(f"{PATH}/session", json={"token": "x"}, headers=told)).status_code == 401
            assert (await client.get("/v1/models")).status_code == 200
        page.end()
    assert capsys.readouterr().err == "the live page: http://127.0.0.1:8080/dashboard/\n"


@pytest.mark.real_time
async def test_a_run_says_where_its_page_is_and_has_none_unless_it_is_wanted(capsys):
    async with ActorSystem("run", log=False) as system:
        async with live_page(system, PageOptions()):
            assert system.children == {}
        async with live_page(system, PageOptions(is_wanted=True)):
            assert len(system.children) == 1
    assert capsys.readouterr().err.startswith("the live page: http://127.0.0.1:")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"is_wanted": False, "may_act": True, "token": "${TOKEN}"}, "need --dashboard"),
        ({"is_wanted": True, "may_act": False, "token": "a-secret-in-an-argument"}, "an argument is no secret"),
        ({"is_wanted": True, "may_act": False, "token": "${UNSET}"}, "set UNSET to a secret"),
        ({"is_wanted": True, "may_act": False, "token": "${SHORT}"}, "at least 16 characters"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(BadInput, match=words):
        page_options(**options, environ={"SHORT": "abc"})


@pytest.mark.real_time
async def test_a_command_is_found_with_a_page_and_without_and_both_have_one_watcher():
    for is_wanted in (False, True):
        options = page_options(is_wanted=is_wanted, may_act=True, token=None)
        async with ActorSystem("run", log=False) as system, live_page(system, options):
            async with SocketPlace(only_socket()).open() as link:
                await anext(link.updates())
            assert len(system.children) == 1


def only_socket() -> Path:
    (found,) = (one for one in sockets() if one.name.startswith(f"{os.getpid()}."))
    return found
