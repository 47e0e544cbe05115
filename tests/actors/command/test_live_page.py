"""`understudy run --dashboard` and `serve --dashboard` as people run them: the page is told once, opens, and ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys

import httpx
import pytest

MARKET = """
[[providers]]
name = "alder"
url = "http://127.0.0.1:{port}/"
services = ["uppercase"]
idempotent = "key"
"""
MODELS = """
[[providers]]
name = "alder"
kind = "compatible"
model = "m"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "none"
"""
TOLD = re.compile(r"^the live page: (http://127\.0\.0\.1:\d+/(?:dashboard/)?)(?:#(\S+))?$", re.MULTILINE)
TOKEN = "operator's " + "x" * 9
CUSTOM = {"x-understudy": "1"}


@pytest.fixture
async def silent():
    """A provider that takes calls and answers none."""

    async def hold(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def told_page(process):
    """Read what the command says until it tells where its page is; return all that, the address and the token."""
    said = ""
    while not (found := TOLD.search(said)):
        line = await process.stderr.readline()
        assert line, said
        said += line.decode()
    return said, found[1], found[2]


async def first_update(address, token):
    """Exchange a token, and read of the page's stream until the provider is told of."""
    async with httpx.AsyncClient(base_url=address, headers=CUSTOM, timeout=60.0) as client:
        assert "<title>understudy" in (await client.get("")).text
        wrong = await client.post("session", json={"token": "wrong" * 8})
        right = await client.post("session", json={"token": token})
        assert (wrong.status_code, right.status_code) == (401, 204)
        async with client.stream("GET", "stream") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: ") and '"name":"alder"' in line:
                    return


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize(("command", "market"), [("run", MARKET), ("serve", MODELS)])
async def test_a_command_tells_of_its_page_once_and_ends_with_it_open(command, market, silent, tmp_path):
    (tmp_path / "market.toml").write_text(market.format(port=silent))
    (tmp_path / "requests.jsonl").write_text('{"id": 1, "service": "uppercase", "input": "a", "timeout": 600}\n')
    options = {"run": ["requests.jsonl", "--out", "results.jsonl"], "serve": ["--port", "0"]}[command]
    own = ["--dashboard-token", "${OPERATOR}"] if command == "serve" else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "actors.command", command, "market.toml", *options, "--dashboard", *own),
        cwd=tmp_path,
        env=os.environ | {"OPERATOR": TOKEN},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, address, token = await told_page(process)
        assert (token is None) is bool(own)
        await first_update(address, token or TOKEN)
        async with httpx.AsyncClient(base_url=address, timeout=60.0) as client:
            told = {"authorization": f"Bearer {token or TOKEN}"}
            async with client.stream("GET", "stream", headers=told) as stream:
                assert stream.status_code == 200
                process.send_signal(signal.SIGINT)
                out, rest = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    said += rest.decode()
    assert process.returncode == 128 + signal.SIGINT
    assert len(TOLD.findall(said)) == 1
    assert TOKEN not in said + out.decode()
    assert "Traceback" not in said
    assert said.count(token or "the live page") == 1
