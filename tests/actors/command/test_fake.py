"""`understudy fake` as people run it."""

from __future__ import annotations

import asyncio
import signal
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
