"""Retries that SDKs make by themselves are the same request: one charge, one answer."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.fake import FakeModel, FaultPlan
from actors.fake.faults import FakeOutage
from actors.serve import DoorConfig
from actors.serve.retries import MAX_TRIES, REMEMBERED_FOR, OpenTries, Try, retry_count, same_request
from actors.serve.retry_log import RetryLog
from tests.actors.serve.doors import HELLO, serving

SLOW = FakeModel(name="m", latency=4.0)


def test_a_try_is_that_of_the_newest_request_that_was_tried_less_often():
    tries = OpenTries()
    first, second = tries.begin("a", 0, now=0.0), tries.begin("a", 0, now=1.0)
    assert first.key != second.key
    again = tries.begin("a", 1, now=2.0)
    assert again.key == second.key
    assert tries.begin("a", 1, now=3.0).key == first.key
    # Each is matched once, until that try has not got its answer either.
    assert tries.begin("a", 1, now=4.0).key not in {first.key, second.key}
    assert tries.begin("b", 1, now=4.0).key not in {first.key, second.key}
    tries.end(again.key)
    assert tries.begin("a", 2, now=5.0).key != again.key


def test_a_try_is_remembered_for_a_quarter_of_an_hour_and_not_without_bound():
    tries = OpenTries()
    first = tries.begin("a", 0, now=0.0)
    assert tries.begin("a", 1, now=REMEMBERED_FOR - 1).key == first.key
    assert tries.begin("a", 2, now=2 * REMEMBERED_FOR).key != first.key
    for number in range(MAX_TRIES + 10):
        tries.begin(str(number), 0, now=2 * REMEMBERED_FOR)
    assert len(tries) == MAX_TRIES == sum(len(keys) for keys in tries._keys.values())


def test_only_the_same_asker_path_and_body_are_the_same_request():
    parts = [("ab", "c", b"d"), ("a", "bc", b"d"), ("a", "b", b"cd"), ("", "ab", b"cd"), ("\udc80", "", b"")]
    assert len({same_request(*one) for one in parts}) == len(parts)
    for wrong in ("", "-1", "1.5", "x", "1000", "\u0661"):
        assert retry_count({"x-stainless-retry-count": wrong}) is None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.booleans(), st.booleans()), max_size=40))
def test_a_log_tells_what_was_not_delivered(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("log") / "tries"
    log = RetryLog(path)
    tries = log.open(now=0.0)
    for now, (same, count, is_delivered, ends) in enumerate(steps):
        begun = tries.begin(same, count, now=float(now))
        log.begun(begun)
        if is_delivered:
            tries.end(begun.key)
            log.ended(begun.key, at=float(now))
        if ends:
            log.close()
            with path.open("ab") as file:
                file.write(b'["a","cut off')  # The process was killed while it wrote.
            log = RetryLog(path)
            assert log.open(now=float(now))._by_key == tries._by_key
    log.close()


async def post(stage, count, *, within=60.0, stream=False):
    body = {"model": "auto", "messages": HELLO, "stream": stream}
    headers = {} if count is None else {"x-stainless-retry-count": str(count)}
    return await asyncio.wait_for(stage.client.post("/v1/chat/completions", json=body, headers=headers), within)


@pytest.mark.parametrize(("pause", "calls"), [(0.5, 1), (4.0, 1), (600.0, 1), (1_000.0, 2)])
async def test_a_try_after_a_timeout_gets_the_answer_of_the_one_before(pause, calls):
    async with serving(SLOW) as stage:
        with pytest.raises(TimeoutError):
            await post(stage, 0, within=2.0)
        await asyncio.sleep(pause)
        response = await post(stage, 1)
        assert response.status_code == 200
        assert stage.calls == calls


async def test_a_call_whose_client_does_not_come_back_ends_after_a_while():
    async with serving(FakeModel(name="m", latency=60.0), config=DoorConfig(linger=5.0)) as stage:
        with pytest.raises(TimeoutError):
            await post(stage, 0, within=2.0)
        await asyncio.sleep(10.0)
        assert stage.door.under_way == 0
        assert not stage.servers[0].tasks


@pytest.mark.parametrize("counts", [(0, 0), (None, None), (None, 1), (0, None)])
async def test_what_is_no_retry_is_a_request_of_its_own(counts):
    async with serving(SLOW) as stage:
        with pytest.raises(TimeoutError):
            await post(stage, counts[0], within=2.0)
        response = await post(stage, counts[1])
        await asyncio.sleep(10.0)
        assert "x-understudy-replayed" not in response.headers
        assert stage.calls == 2


async def test_two_samples_at_once_are_two_and_each_retry_gets_its_own():
    async with serving(SLOW) as stage:
        for one in await asyncio.gather(*(post(stage, 0, within=2.0) for _ in range(2)), return_exceptions=True):
            assert isinstance(one, TimeoutError)
        answers = await asyncio.gather(post(stage, 1), post(stage, 1))
        assert stage.calls == 2
        assert len({one.json()["id"] for one in answers}) == 2


async def test_a_try_after_a_failure_is_no_request_of_another_client():
    async with serving(SLOW, faults=(FakeOutage(),)) as stage:
        assert (await post(stage, 0)).status_code == 503
        stage.servers[0].provider.set_plan(FaultPlan(), now=0.0)
        before = stage.calls
        other = asyncio.create_task(post(stage, 0))
        await asyncio.sleep(1.0)
        again, third = await asyncio.gather(post(stage, 1), post(stage, 1))
        answers = [await other, again, third]
        # The third is after none that failed: it may be the other one, for which a proxy may still be there.
        assert stage.calls - before == 2
        assert len({one.json()["id"] for one in answers}) == 2
        assert answers[0].json() == third.json()


@pytest.mark.parametrize(
    ("wait", "after", "is_new"),
    [
        (None, 0.5, True),
        (None, 18.0, True),
        (None, 18.1, False),
        (5.0, 4.0, False),
        (5.0, 5.0, True),
        (60.0, 60.0, True),
        (60.0, 71.0, False),
        (3_600.0, 8.0, True),
        (3_600.0, REMEMBERED_FOR - 1, False),
    ],
)
def test_only_a_try_that_comes_when_an_sdk_tries_a_told_failure_again_is_new(wait, after, is_new):
    # What comes at another time may be of a client whose connection broke, although what is between keeps it open.
    tries = OpenTries()
    stays = tries.begin("a", 0, now=0.0, is_there=lambda: True)
    tries.tell(tries.begin("a", 0, now=0.0), now=0.0, wait=wait)
    assert (tries.begin("a", 1, now=after).key != stays.key) == is_new


def test_one_whose_client_has_left_comes_before_one_that_failed():
    tries, clients = OpenTries(), {"stays": True, "leaves": True}
    stays = tries.begin("a", 0, now=0.0, is_there=lambda: clients["stays"])
    leaves = tries.begin("a", 0, now=0.0, is_there=lambda: clients["leaves"])
    tries.tell(tries.begin("a", 0, now=0.0), now=1.0)
    clients["leaves"] = False
    assert tries.begin("a", 1, now=2.0).key == leaves.key
    assert tries.begin("a", 2, now=2.0).key == leaves.key  # It is not known to have a client.
    new = tries.begin("a", 1, now=3.0, is_there=lambda: True)
    assert new.key not in {stays.key, leaves.key}
    tries.over(stays)
    assert tries.begin("a", 1, now=4.0).key == stays.key


async def test_a_request_that_got_its_answer_is_not_given_again():
    async with serving(SLOW) as stage:
        first = await post(stage, 0)
        second = await post(stage, 1)
        assert stage.calls == 2
        assert "x-understudy-replayed" not in second.headers
        assert first.status_code == second.status_code == 200


async def test_a_try_is_recognised_after_a_restart(tmp_path):
    async with serving(SLOW) as stage:
        log = RetryLog(tmp_path / "tries")
        stage.door.remember_tries(log)
        with pytest.raises(TimeoutError):
            await post(stage, 0, within=2.0)
        await asyncio.sleep(5.0)  # It goes on, and is paid.
        log.close()
        stage.door.tries = OpenTries()
        stage.door.remember_tries(RetryLog(tmp_path / "tries"))
        response = await post(stage, 1)
        assert (stage.calls, response.headers["x-understudy-replayed"]) == (1, "true")
        assert len(stage.door.tries) == 0
        assert isinstance(stage.door.retry_log, RetryLog)
        stage.door.retry_log.close()


def answers_in(journal):
    with closing(sqlite3.connect(journal)) as file:
        return [file.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("kept", "bodies")]  # noqa: S608


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_its_client_has_is_kept_no_longer(tmp_path, stream):
    journal = tmp_path / "door.journal"
    async with serving(SLOW, journal=journal) as stage:
        for _ in range(3):
            assert (await post(stage, 0, stream=stream)).status_code == 200
        own = {"model": "auto", "messages": HELLO}
        assert (await stage.post("/v1/chat/completions", own, idempotency_key="k")).status_code == 200
        with pytest.raises(TimeoutError):
            await post(stage, 0, within=2.0, stream=stream)
        await asyncio.sleep(10.0)
    kept, answers = answers_in(journal)
    # The answer to a key of the client, and the one that did not arrive.
    assert (kept >= 5, answers) == (True, 2)
    async with serving(SLOW, journal=journal) as stage:
        assert (await stage.post("/v1/chat/completions", own, idempotency_key="k")).headers["x-understudy-replayed"]
        assert stage.calls == 0


async def test_an_answer_that_its_client_never_gets_is_kept_for_a_quarter_of_an_hour(tmp_path):
    journal, log = tmp_path / "door.journal", tmp_path / "tries"
    for life in range(2):
        async with serving(SLOW, journal=journal) as stage:
            begun = 2_000.0 * life
            stage.door.clock = lambda begun=begun: 1e9 + begun + asyncio.get_running_loop().time()
            stage.door.remember_tries(RetryLog(log))
            for number in range(2):
                with pytest.raises(TimeoutError):
                    await post(stage, 0, within=2.0)
                await asyncio.sleep(REMEMBERED_FOR + 10.0 if number == 0 else 10.0)
            stage.door.retry_log.close()
        # In the second life, the next request has that of the first life forgotten, and then its own.
        assert answers_in(journal)[1] == 1


def test_a_try_is_written_before_it_begins(tmp_path):
    log = RetryLog(tmp_path / "tries")
    log.open(now=0.0)
    log.begun(Try("a", "k", 0, 1.0))
    log.close()
    assert RetryLog(tmp_path / "tries").open(now=2.0).begin("a", 1, now=2.0).key == "k"
    assert len(RetryLog(tmp_path / "tries").open(now=2 * REMEMBERED_FOR)) == 0
