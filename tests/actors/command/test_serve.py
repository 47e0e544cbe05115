"""`understudy serve` and `understudy key` as people run them: served, ended, killed and started again."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest

from actors.command.app import run_app
from actors.command.top.finding import RunningPlace
from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from actors.fake.draws import Uniform
from actors.serve.key_file import read_keys
from actors.serve.keys import KeyRing
from tests.proofs import repeated
from tests.real_time import FAR

MARKET = """
[[providers]]
name = "alder"
kind = "compatible"
model = "m"
base_url = "{url}/v1"
api_key = "none"
tariff = {{ input = "1", output = "2" }}

[tenants.acme]
budget = "0.50"
"""
BODY = {"model": "auto", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def models():
    model = FakeModel(name="m", price=FakePrice(input="1", output="2"), latency=1.5)
    async with fake_server(FakeConfig(models=(model,))) as server:
        yield server


@pytest.fixture
def market(models, tmp_path):
    path = tmp_path / "market.toml"
    path.write_text(MARKET.format(url=models.url))
    return path


@asynccontextmanager
async def serving(market, *options):
    command = [sys.executable, "-m", "actors.command", "serve", str(market), "--port", "0", *options]
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, (await process.communicate())[1].decode()
        yield process, json.loads(line)["url"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(url, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(FAR)) as session,
        session.post(f"{url}/chat/completions", json=BODY, headers=named) as response,
    ):
        return response.status, dict(response.headers), await response.json()


async def begin(models, url, **headers):
    """Ask, and return the task once the call is with the provider."""
    asking = asyncio.create_task(ask(url, **headers))
    while models.books.idle.is_set() and not asking.done():  # noqa: ASYNC110 - a server tells when it is idle, not when it is busy.
        await asyncio.sleep(0)
    return asking


async def leave(asking):
    asking.cancel()
    await asyncio.wait({asking})


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_key_opens_the_door_until_it_is_revoked(market, models, tmp_path, capsys):
    keys = str(tmp_path / "keys.jsonl")
    assert run_app(["key", "new", "acme", "--keys", keys]) == 0
    assert run_app(["key", "new", "acme", "--keys", keys]) == 0
    shown, other = capsys.readouterr().out.split()
    async with serving(market, "--keys", keys, "--watch") as (process, url):
        status, headers, body = await ask(url, authorization=f"Bearer {shown}")
        assert (status, body["model"], headers["x-understudy-provider"]) == (200, "auto", "alder")
        assert (await ask(url))[0] == 401
        await models.until_idle()
        assert run_app(["key", "revoke", other.split("-")[1], "--keys", keys]) == 0
        while (await ask(url, authorization=f"Bearer {other}"))[0] != 401:
            pass  # The file is watched.
        await models.until_idle()
        paid = models.books.calls
        last = await begin(models, url, authorization=f"Bearer {shown}")
        process.send_signal(signal.SIGTERM)
        assert (await last)[0] == 200  # What was under way is finished.
        assert await process.wait() == 143
    await models.until_idle()
    assert models.books.calls == paid + 1
    assert run_app(["key", "revoke", shown.split("-")[1], "--keys", keys]) == 0
    assert run_app(["key", "revoke", "none", "--keys", keys]) == 2
    assert KeyRing(read_keys(keys)).find(shown, now=4e9) is None


@pytest.mark.slow
@pytest.mark.real_time
async def test_with_log_json_each_request_and_attempt_is_a_line_of_json(market):
    async with serving(market, "--log", "json") as (process, url):
        assert process.stderr is not None
        assert b"serving auto" in await process.stderr.readline()
        assert (await ask(url))[0] == 200
        lines = [json.loads(await process.stderr.readline()) for _ in range(2)]
    assert {line["logger"].rpartition(".")[2] for line in lines} == {"Monitor", "Supervisor"}
    assert len({line["request_id"] for line in lines}) == 1


@pytest.mark.slow
@pytest.mark.real_time
async def test_with_metrics_a_scraper_is_told_what_was_spent_and_a_terminal_finds_the_door(market):
    pytest.importorskip("prometheus_client")
    async with serving(market, "--metrics") as (process, url), aiohttp.ClientSession() as session:
        assert (await ask(url))[0] == 200
        async with session.get(f"{url.removesuffix('/v1')}/metrics") as response:
            told = (await response.text()).splitlines()
        async with RunningPlace(process.pid).open() as link:
            update = await anext(link.updates())
        (provider,) = update.providers.put.values()
        assert (provider.name, provider.calls) == ("alder", 1)
        assert not update.totals.put[""].may_act
    assert 'understudy_requests_total{outcome="done",service="chat"} 1.0' in told
    assert any(line.startswith('understudy_account_settled_dollars{account="acme"}') for line in told)


@pytest.mark.slow
@pytest.mark.real_time
async def test_a_hangup_has_the_files_read_again(market, models, tmp_path, capsys):
    keys = str(tmp_path / "keys.jsonl")
    run_app(["key", "new", "acme", "--keys", keys])
    run_app(["key", "new", "acme", "--keys", keys])
    run_app(["key", "new", "acme", "--keys", keys])
    shown, other, third = capsys.readouterr().out.split()
    written = market.read_text()
    async with serving(market, "--keys", keys) as (process, url):
        assert process.stderr is not None
        assert b"serving auto" in await process.stderr.readline()

        async def reload(text):
            market.write_text(text)
            process.send_signal(signal.SIGHUP)
            return (await process.stderr.readline()).decode()

        async def listed(key):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{url}/models", headers={"authorization": f"Bearer {key}"}) as response,
            ):
                return response.status, [one["id"] for one in (await response.json()).get("data", ())]

        run_app(["key", "revoke", other.split("-")[1], "--keys", keys])
        assert "serving smart" in await reload(f'{written}\n[aliases.smart]\nmodels = ["m"]\n')
        assert (await listed(shown))[1][0] == "smart"
        assert (await listed(other))[0] == 401
        for wrong in (f"{written}[", f'{written}\n[aliases.m]\nmodels = ["m"]\n', written.replace("acme", "initech")):
            assert "the door goes on as before" in await reload(wrong)
        assert "needs a restart" in await reload(f"{written}\n[serve]\nport = 1\n")
        assert (await listed(shown))[1][0] == "smart"
        # Another provider, at another price, for the next request; the first one ends as it began.
        last = await begin(models, url, authorization=f"Bearer {shown}")
        cut = await begin(models, url, authorization=f"Bearer {third}")
        run_app(["key", "revoke", third.split("-")[1], "--keys", keys, "--now"])
        changed = written.replace("alder", "birch").replace('input = "1"', 'input = "2000"')
        assert "serving auto" in await reload(changed)
        await models.until_idle()
        _, headers, _ = await ask(url, authorization=f"Bearer {shown}")
        assert (await cut)[0] == 401
        before = (await last)[1]
        assert (before["x-understudy-provider"], headers["x-understudy-provider"]) == ("alder", "birch")
        assert float(headers["x-understudy-cost"]) > 100 * float(before["x-understudy-cost"])
        # A cap that is lowered below what was spent refuses at once.
        assert "serving auto" in await reload(written.replace('budget = "0.50"', 'budget = "0.00"'))
        assert (await ask(url, authorization=f"Bearer {shown}"))[0] == 402


@pytest.mark.slow
@pytest.mark.real_time
async def test_what_was_paid_outlives_a_kill(market, models):
    async with serving(market) as (process, url):
        await leave(await begin(models, url, x_stainless_retry_count="0"))
        await models.until_idle()  # Its call goes on after the client, and is paid.
        last = await begin(models, url, x_stainless_retry_count="0", idempotency_key="k-1")
        process.kill()
        await process.wait()
        await leave(last)
    await models.until_idle()
    assert models.books.calls == 2
    async with serving(market) as (process, url):
        status, headers, _ = await ask(url, x_stainless_retry_count="1")
        assert (status, headers.get("x-understudy-replayed")) == (200, "true")
        # The second was under way: whether it was paid is not known, so it is not paid again.
        status, headers, body = await ask(url, idempotency_key="k-1")
        assert (status, headers["x-should-retry"]) == (409, "false"), body
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    await models.until_idle()
    assert models.books.calls == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "understudy key new"),
        (["--port", "70000"], "--port"),
        (["--keys", "none.jsonl"], "--keys: none.jsonl: No such file"),
        (["--drain", "0"], "--drain"),
        (["--safety", "none"], "--safety"),
        (["--traces", "2"], "--traces: sample must be a share"),
    ],
)
def test_what_cannot_be_served_is_one_line(arguments, said, tmp_path, capsys):
    path = tmp_path / "market.toml"
    path.write_text(MARKET.format(url="http://127.0.0.1:1"))
    assert run_app(["serve", str(path), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_key_of_no_tenant_is_refused(tmp_path, capsys):
    path, keys = tmp_path / "market.toml", str(tmp_path / "keys.jsonl")
    path.write_text(MARKET.format(url="http://127.0.0.1:1"))
    run_app(["key", "new", "initech", "--keys", keys, "--days", "1", "--priority", "low"])
    assert run_app(["key", "new", "initech", "--keys", keys, "--priority", "urgent"]) == 2
    assert run_app(["serve", str(path), "--keys", keys]) == 2
    assert "[tenants.initech]" in capsys.readouterr().err


class Customer:
    """Asks for one answer in each life of a door, and knows it again: under a key, or as an SDK tries again."""

    def __init__(self, number: int) -> None:
        self.body = BODY | {"messages": [{"role": "user", "content": f"hello {number}"}], "stream": number % 2 == 0}
        self.key = f"k-{number}" if number % 4 < 2 else None
        self.tries = 0
        self.text: str | None = None
        self.is_told = False
        """Whether it was told not to ask again, which an SDK does not do then."""

    async def ask(self, url: str) -> None:
        if self.key is None and (self.is_told or self.text is not None):
            return
        headers = {"x-stainless-retry-count": str(self.tries)} if self.key is None else {"idempotency-key": self.key}
        self.tries += 1
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(FAR)) as session,
            session.post(f"{url}/chat/completions", json=self.body, headers=headers) as response,
        ):
            told = await response.text()
        if response.status == 200 and '"error":' not in told:
            text = text_in(told)
            assert self.text in {None, text}  # The same answer as before the kill.
            self.text = text
        else:
            assert response.status == 200 or response.headers["x-should-retry"] == "false", told
            self.is_told = True


def text_in(told: str) -> str:
    """Return the text of a whole answer, plain or streamed."""
    if not told.startswith("data:"):
        return json.loads(told)["choices"][0]["message"]["content"]
    assert told.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


@pytest.mark.slow
@pytest.mark.real_time
async def test_kills_in_mid_traffic_cost_no_second_charge_and_lose_no_answer(tmp_path):
    latency, kills = Uniform(0.2, 1.5), repeated(10)
    model = FakeModel(name="m", price=FakePrice(input="1", output="2"), latency=latency, token_speed=10.0)
    market, customers = tmp_path / "market.toml", [Customer(number) for number in range(24)]
    async with fake_server(FakeConfig(models=(model,))) as models:
        market.write_text(MARKET.format(url=models.url))
        for life in range(kills + 1):
            async with serving(market) as (process, url):
                before = sum(one.text is not None for one in customers)
                asking = pending = {asyncio.create_task(one.ask(url)) for one in customers}
                while pending and (life == kills or sum(one.text is not None for one in customers) < before + 4):
                    _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if life < kills:
                    process.kill()
                results = await asyncio.gather(*asking, return_exceptions=True)
                assert all(one is None or isinstance(one, aiohttp.ClientError) for one in results), results
            await models.until_idle()
        # What was under way at a kill is told to be unknown, or cut, and is not paid again.
        answered = [one for one in customers if one.text is not None]
        assert all(one.is_told for one in customers if one.text is None)
        assert len(answered) <= models.books.calls <= len(customers)
