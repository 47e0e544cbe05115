"""`understudy fake` as people run it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys

import aiohttp
import msgspec
import pytest

from actors.command.app import run_app

CONFIG = """
seed = 3
[[models]]
name = "nano"
price = {input = "0.05", output = "0.40"}
latency = {kind = "lognormal", median = 0.001}
limits = {requests = 60}
[[plan.faults]]
kind = "throttle"
until = 0.0
"""


@pytest.mark.real_time
async def test_it_tells_its_url_serves_and_ends_when_it_is_interrupted(tmp_path):
    path = tmp_path / "servers.toml"
    path.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "actors.command", "fake", str(path), stdout=-1, stderr=-1
    )
    assert process.stdout is not None
    url = msgspec.json.decode(await process.stdout.readline())["url"]
    async with aiohttp.ClientSession() as session:
        body = {"model": "nano", "messages": [{"role": "user", "content": "hello"}]}
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            assert response.headers["x-ratelimit-limit-requests"] == "60"
    process.send_signal(signal.SIGTERM)
    _, told = await process.communicate()
    assert process.returncode == 143
    assert b"1 calls" in told
    assert b"Traceback" not in told


@pytest.mark.real_time
async def test_it_ends_with_its_standard_input_if_that_is_wanted():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "actors.command", "fake", "--until-eof", stdin=-1, stdout=-1, stderr=-1
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline()
    process.stdin.close()
    assert await process.wait() == 0


def test_a_standard_input_that_cannot_be_watched_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "actors.command", "fake", "--until-eof"],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: --until-eof: standard input must be a pipe or a terminal\n"


def test_a_port_that_is_taken_is_told(capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_app(["fake", "--port", str(port)]) == 2
    told = f"error: --port: http://127.0.0.1:{port} cannot be served: Address already in use; name another port\n"
    assert capfd.readouterr().err == told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.toml"], "missing.toml: No such file"),
        (["--host", "0.0.0.0"], "--host: a fake server listens on a loopback address only"),
        (["--port", "70000"], "--port: expected a number from 0 to 65535"),
        (["bad.toml"], "Object contains unknown field `modles`"),
        (["--plan", "plan.toml"], "Invalid value 'outrage'"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, told, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("modles = []")
    (tmp_path / "plan.toml").write_text('[[faults]]\nkind = "outrage"')
    assert run_app(["fake", *arguments]) == 2
    out, err = capfd.readouterr()
    assert (out, told in err) == ("", True)
    assert len(err.splitlines()) == 1


def test_the_missing_extra_is_named(monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "actors.fake.http_server", raising=False)
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert run_app(["fake"]) == 2
    assert 'pip install "understudy[serve]"' in capfd.readouterr().err
