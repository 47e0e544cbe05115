"""The demo provider: its decisions with given times, and the whole as a process on loopback."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from actors.command.demo.backend import DemoCall, DemoProvider, DemoSettings, Reply, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORK = DemoCall(service="uppercase", input="to be or not")


def ask(
    provider: DemoProvider, *, key: str = "", request_id: str = "", now: float = 0.0, work: DemoCall = WORK
) -> Reply:
    return provider.answer(work, key=key, request_id=request_id, now=now)


def stats(provider: DemoProvider) -> Stats:
    return Stats(**provider.counters().body)


def test_a_served_call_is_answered_and_charged():
    provider = DemoProvider(DemoSettings(price="0.002"))
    assert ask(provider, key="k").body == {"output": "TO BE OR NOT", "cost": "0.002"}
    counting = DemoCall(service="word-count", input="to be or not")
    assert ask(provider, key="l", work=counting).body["output"] == 4
    assert stats(provider) == Stats(calls=2, answered=2, charged_micros=4_000, distinct_keys=2)


def test_a_key_that_comes_again_gets_its_first_answer_and_is_charged_once():
    provider = DemoProvider(DemoSettings(price="0.002"))
    first = ask(provider, key="k", request_id="r")
    assert ask(provider, key="k", request_id="r") == first
    assert stats(provider) == Stats(calls=2, answered=1, replayed=1, charged_micros=2_000, distinct_keys=1)


def test_a_key_that_comes_again_with_another_input_is_refused():
    provider = DemoProvider(DemoSettings())
    ask(provider, key="k")
    assert ask(provider, key="k", work=DemoCall(service="uppercase", input="other")).status == 422
    assert stats(provider).refused == 1


def test_a_request_charged_under_two_keys_counts_as_paid_twice():
    provider = DemoProvider(DemoSettings(price="1"))
    ask(provider, key="k", request_id="r")
    ask(provider, key="l", request_id="r")
    assert stats(provider).paid_twice == 1


def test_a_request_charged_again_after_its_answer_was_forgotten_counts_as_paid_twice():
    provider = DemoProvider(DemoSettings(price="1", max_remembered=1))
    for key in ("k", "l", "k"):
        ask(provider, key=key)
    assert (stats(provider).paid_twice, stats(provider).distinct_keys) == (1, 2)


def test_failures_come_at_their_rate_and_in_the_same_order_for_the_same_seed():
    def statuses(seed: int) -> list[int]:
        provider = DemoProvider(DemoSettings(failure_rate=0.3, seed=seed))
        return [ask(provider).status for _ in range(1_000)]

    assert statuses(1) == statuses(1) != statuses(2)
    assert set(statuses(1)) == {200, 500, 503}
    assert 650 <= statuses(1).count(200) <= 750


@pytest.mark.parametrize(("unclear_rate", "statuses"), [(0.0, {503}), (1.0, {500})])
def test_a_failure_is_a_refusal_or_of_unknown_effect(unclear_rate, statuses):
    provider = DemoProvider(DemoSettings(failure_rate=1.0, unclear_rate=unclear_rate))
    assert {ask(provider).status for _ in range(100)} == statuses


def test_a_failed_call_is_not_charged_and_not_remembered():
    provider = DemoProvider(DemoSettings(price="1", failure_rate=1.0))
    for _ in range(3):
        assert ask(provider, key="k").status in {500, 503}
    assert stats(provider) == Stats(calls=3, failures=3, distinct_keys=1)


def test_the_brown_out_begins_and_ends_by_the_first_call():
    provider = DemoProvider(DemoSettings(brownout=(5.0, 2.0), latency=(0.1, 0.1)))
    assert provider.health(now=1_000.0).status == 200
    seen = {now: ask(provider, now=now) for now in (100.0, 104.9, 105.0, 106.9, 107.0)}
    assert [reply.status for reply in seen.values()] == [200, 200, 503, 503, 200]
    assert seen[105.0].delay == 5 * seen[100.0].delay == pytest.approx(0.5)
    assert [provider.health(now=now).status for now in (104.9, 105.0, 107.0)] == [200, 503, 200]


def test_over_its_rate_it_throttles_and_says_when_to_come_again():
    provider = DemoProvider(DemoSettings(rate_limit=0.5, burst=2))
    replies = [ask(provider, now=now) for now in (0.0, 0.0, 0.0, 1.9, 2.0)]
    assert [reply.status for reply in replies] == [200, 200, 429, 429, 200]
    assert [reply.retry_after for reply in replies] == [None, None, 2, 1, None]
    assert stats(provider).throttled == 2


def test_in_any_second_it_serves_at_most_its_rate_and_one_burst():
    provider = DemoProvider(DemoSettings(rate_limit=40.0, burst=10))
    rng = random.Random(7)
    times = sorted(rng.uniform(0.0, 10.0) for _ in range(5_000))
    served = [now for now in times if ask(provider, now=now).status == 200]
    assert len(served) >= 400
    assert max(sum(start <= other < start + 1.0 for other in served) for start in served) <= 50


def test_an_unknown_service_is_the_callers_mistake():
    provider = DemoProvider(DemoSettings(price="1"))
    reply = ask(provider, work=DemoCall(service="poetry", input="x"))
    assert reply.status == 404
    assert "uppercase, word-count" in reply.body["error"]["message"]
    assert stats(provider).charged_micros == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"price": "-1"}, "'-1' is negative"),
        ({"failure_rate": 1.1}, "failure rate must be from 0 to 1, got 1.1"),
        ({"unclear_rate": -0.1}, "unclear rate must be from 0 to 1, got -0.1"),
        ({"latency": (0.2, 0.1)}, "latency must be LOW-HIGH"),
        ({"brownout": (-1.0, 1.0)}, "brown-out must be START:LENGTH, both >= 0"),
        ({"rate_limit": 0.0}, "rate limit must be > 0"),
        ({"burst": 0}, "burst must be >= 1"),
        ({"max_remembered": 0}, "max remembered must be >= 1"),
    ],
)
def test_settings_no_provider_can_have_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DemoSettings(**settings)


class Provider:
    """A demo provider in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "actors.command.demo.server", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        encoded = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, encoded, names)
        with self.connection.getresponse() as response:
            return response.status, json.loads(response.read()), response.headers

    def end(self) -> tuple[int, bytes]:
        """Close its standard input; return its exit code and what it wrote to standard error."""
        self.connection.close()
        _, errors = self.process.communicate()
        return self.process.returncode, errors


@pytest.fixture
def start() -> Iterator[Callable[..., Provider]]:
    started: list[Provider] = []

    def run(*arguments: str) -> Provider:
        started.append(Provider(*arguments))
        return started[-1]

    yield run
    for provider in started:
        if provider.process.returncode is None:
            provider.end()


@pytest.mark.slow
def test_the_process_serves_throttles_deduplicates_and_ends_with_its_standard_input(start):
    provider = start("--name", "alder", "--price", "0.002", "--rate-limit", "0.001", "--burst", "3")
    call = {"service": "uppercase", "input": {"text": "hello", "target": "de"}}
    for _ in range(2):
        status, body, _ = provider.request("POST", "/", call, Idempotency_Key="k", X_Request_Id="r")
        assert (status, body) == (200, {"output": "HELLO", "cost": "0.002"})
    sock = provider.connection.sock
    assert provider.request("POST", "/", call, Idempotency_Key="l")[0] == 200
    status, body, headers = provider.request("POST", "/", call, Idempotency_Key="m")
    assert (status, body["error"]["code"]) == (429, 429)
    assert 500 <= int(headers["Retry-After"]) <= 1_000
    assert provider.request("GET", "/health")[:2] == (200, {"name": "alder", "status": "ok"})
    expected = Stats(calls=4, answered=2, throttled=1, replayed=1, charged_micros=4_000, distinct_keys=3)
    assert Stats(**provider.request("GET", "/stats")[1]) == expected
    assert provider.connection.sock is sock
    assert provider.end() == (0, b"")


@pytest.mark.slow
def test_the_process_refuses_what_it_cannot_read_and_lives_on(start):
    provider = start()
    assert provider.request("POST", "/", b"{oops")[0] == 400
    assert provider.request("POST", "/", {"service": "uppercase"})[0] == 400
    assert provider.request("GET", "/nowhere")[0] == 404
    status, _, headers = provider.request("POST", "/", b"{}", Content_Length="9999999")
    assert (status, headers["Connection"]) == (413, "close")
    assert Stats(**provider.request("GET", "/stats")[1]) == Stats()
    assert provider.end() == (0, b"")


@pytest.mark.slow
def test_a_caller_that_hangs_up_leaves_the_process_well_and_silent(start):
    provider = start("--latency", "0.2")
    call = {"service": "uppercase", "input": "x"}
    provider.connection.request("POST", "/", json.dumps(call))
    # With no linger, closing resets the connection, so that the answer meets an error and not a buffer.
    provider.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    provider.connection.close()
    assert provider.request("POST", "/", call)[0] == 200
    assert provider.end() == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_on_a_signal_while_a_caller_is_connected(start, number):
    provider = start()
    provider.request("GET", "/health")
    provider.process.send_signal(number)
    assert provider.process.wait() == 0
    assert provider.end() == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency", "fast"], b"expected A-B in seconds, got 'fast'"),
        (["--failure-rate", "2"], b"failure rate must be from 0 to 1, got 2.0"),
        (["--price", "cheap"], b"amount 'cheap' is not a decimal number"),
    ],
)
def test_arguments_that_make_no_sense_end_with_2_and_say_why(arguments, message):
    command = [sys.executable, "-m", "actors.command.demo.server", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert message in done.stderr
