"""The tools for those who test actors of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime import Actor, ActorCrashed, ActorSystem, AskTimeout, Message, Refusal, Request, Terminated, handles, pool
from runtime.testing import TestProbe, assert_no_leaks, until_idle


class Ping(Message):
    number: int = 0


class Price(Request[int]):
    pass


class Sold(Refusal):
    pass


class Relay(Actor):
    def __init__(self, to: Any) -> None:
        self.to = to

    @handles(Ping)
    async def pass_on(self, message: Ping) -> None:
        await asyncio.sleep(0.5)
        self.to.tell(message)


async def test_a_probe_records_what_it_is_sent_in_order():
    async with ActorSystem("s") as system:
        probe = TestProbe(system, name="probe")
        relay = system.spawn(lambda: Relay(probe.ref))
        for number in range(3):
            relay.tell(Ping(number))
        assert (await probe.expect(Ping)).number == 0
        await probe.expect_nothing(within=0.4)
        assert (await probe.expect(Ping)).number == 1
        with pytest.raises(AssertionError, match="s/probe expected nothing, got Ping"):
            await probe.expect_nothing(within=5.0)
        with pytest.raises(AssertionError, match=r"s/probe got no Ping within 1 s"):
            await probe.expect(Ping)
        probe.ref.tell(Ping(3))
        with pytest.raises(AssertionError, match=r"expected Terminated, got Ping\(number=3\)"):
            await probe.expect(Terminated)
        assert [one.number for one in probe.received] == [0, 1, 2, 3]
        assert repr(probe) == "<TestProbe s/probe, 4 received, 0 unseen>"


async def test_a_probe_answers_as_it_was_told_or_not_at_all():
    async with ActorSystem() as system:
        assert await TestProbe(system, answers={Price: 5}).ref.ask(Price(), timeout=1.0) == 5
        with pytest.raises(Sold):
            await TestProbe(system, answers={Price: Sold()}).ref.ask(Price(), timeout=1.0)
        with pytest.raises(AskTimeout):
            await TestProbe(system).ref.ask(Price(), timeout=1.0)
        broken = TestProbe(system, answers={Price: OSError("broken")})
        for _ in range(2):
            with pytest.raises(ActorCrashed):
                await broken.ref.ask(Price(), timeout=60.0)
        assert broken.received == [Price(), Price()]


async def test_a_probe_watches():
    async with ActorSystem() as system:
        probe, relay = TestProbe(system), system.spawn(lambda: Relay(None))
        probe.watch(relay)
        relay.stop()
        assert (await probe.expect(Terminated)).ref is relay


async def test_until_idle_waits_for_mail_and_work_and_no_longer():
    async with ActorSystem() as system:
        await until_idle(system)
        probe = TestProbe(system)
        relay = pool(system, lambda: Relay(probe.ref), size=2)
        for number in range(4):
            relay.tell(Ping(number))
        began = asyncio.get_running_loop().time()
        await until_idle(system, within=5.0)
        assert len(probe.received) == 4
        assert asyncio.get_running_loop().time() - began == pytest.approx(1.0, abs=0.01)
        relay.tell(Ping())
        with pytest.raises(AssertionError, match=r"still busy after 0\.1 s: system/pool-\d/worker-1"):
            await until_idle(system, within=0.1)


async def test_what_a_block_leaves_behind_is_named():
    async with assert_no_leaks(), ActorSystem() as system:
        system.spawn(lambda: Relay(None)).tell(Ping())
    forgotten: list[asyncio.Task[None]] = []
    with pytest.raises(AssertionError, match="named-task"):
        async with assert_no_leaks():
            forgotten.append(asyncio.create_task(asyncio.sleep(5), name="named-task"))
    for task in forgotten:
        task.cancel()
    await asyncio.gather(*forgotten, return_exceptions=True)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this machine does not tell which files are open")
async def test_a_file_that_is_left_open_is_named():
    opened: list[int] = []
    with pytest.raises(AssertionError, match=r"open file .*null"):
        async with assert_no_leaks():
            opened.append(os.open(os.devnull, os.O_RDONLY))
    os.close(opened[0])


@pytest.mark.slow
def test_the_plugin_gives_each_test_a_system_and_finds_what_it_leaves_behind(tmp_path):
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["runtime.testing.plugin"]\n')
    (tmp_path / "test_mine.py").write_text(
        "import asyncio\n"
        "from runtime import Actor, Message, RestartIntensity, handles\n"
        "kept = []\n"
        "class Boom(Message): pass\n"
        "class Fails(Actor):\n"
        "    @handles(Boom)\n"
        "    def boom(self, message: Boom) -> None:\n"
        "        raise OSError('boom')\n"
        "async def test_clean(system):\n"
        "    system.spawn(Fails)\n"
        "    assert 'test_clean running, 1 actors' in repr(system)\n"
        "async def test_leaky(system):\n"
        "    kept.append(asyncio.create_task(asyncio.sleep(60), name='forgotten'))\n"
        "async def test_failing(system):\n"
        "    ref = system.spawn(Fails)\n"
        "    for _ in range(20):\n"
        "        ref.tell(Boom())\n"
        "    await ref.terminated()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "-rA", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert "3 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert any(line.startswith("ERROR test_mine.py::test_leaky - AssertionError: left behind") for line in lines)
    assert any(line.startswith("ERROR test_mine.py::test_failing - OSError: boom") for line in lines)
