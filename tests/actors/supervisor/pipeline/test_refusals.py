"""A provider that refuses is left alone for a growing while, and the request goes on; in virtual time."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    AllProvidersFailed,
    GetStatus,
    Market,
    OutcomeUnknown,
    Permanent,
    Release,
    RequestOptions,
    Retry,
    Transient,
)
from actors.errors import LeftAlone, QuotaExhausted
from actors.events import ProviderBack, ProviderLeft
from runtime import ActorSystem
from tests.actors.supervisor.stage import Script, Stage, flaky, now, offer, staged, steps
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors import ProviderCall

REVOKED = Permanent("401 Unauthorized", provider="a", scope="provider", concerns="key", status=401)
NO_MODEL = Permanent("404: no such model", provider="a", scope="provider", concerns="name")
TOO_LONG = Permanent("400: too long", provider="a", scope="here")
INDECENT = Permanent("400: flagged", provider="a", scope="here", concerns="content")
EMPTY = QuotaExhausted("402 Payment Required", provider="a")

FOR_ALL = [
    EMPTY,
    *[Permanent("no", provider="a", scope="provider", concerns=what) for what in ("key", "account", "region")],
]


class Models:
    """A provider that has some models, and says of another that it does not exist."""

    def __init__(self, *known: str, said: str = "The model `{}` does not exist") -> None:
        self.known = known
        self.said = said
        self.calls: list[Any] = []

    async def __call__(self, call: ProviderCall) -> Any:
        self.calls.append(call.input)
        if call.input["model"] not in self.known:
            refusal = Permanent("404 Not Found", provider="a", scope="provider", concerns="name", status=404)
            refusal.said = self.said.format(call.input["model"])
            raise refusal
        return "a"


@pytest.mark.parametrize("refusal", [REVOKED, EMPTY, NO_MODEL, TOO_LONG], ids=str)
async def test_a_refusal_that_concerns_one_provider_sends_the_request_to_the_next(refusal: Any):
    a, b = Script(refusal), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        result = await stage.request()
        assert (result.output, result.attempts, result.cost) == ("b", 2, 2)
        assert [one.provider for one in result.failures] == ["a"]
        status = stage.actor.targets.named("a").status()
        assert (status.failures, status.breaker) == (0, "closed")
        await stage.assert_at_rest()


async def test_a_refusal_of_the_request_itself_ends_it():
    a, b = Script(Permanent("400", provider="a")), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        with pytest.raises(Permanent):
            await stage.request()
        assert b.calls == []


async def test_a_refusal_of_this_request_alone_keeps_no_other_from_the_provider():
    a, b = Script(TOO_LONG, "a"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        assert [(await stage.request()).output for _ in range(2)] == ["b", "a"]


@pytest.mark.parametrize("refusal", FOR_ALL, ids=str)
async def test_one_refusal_of_the_key_the_account_or_the_region_keeps_all_requests_away(refusal: Any):
    a, b = Script(refusal), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        for number in range(10):
            assert (await stage.request(input=number)).output == "b"
        assert len(a.calls) == 1


@pytest.mark.parametrize("seed", range(repeated(200)))
async def test_a_provider_that_goes_on_refusing_gets_eight_calls_in_the_first_hour_whatever_the_seed(seed: int):
    a, b = Script(REVOKED), Script("b")
    listings = offer("a", a, price=1), offer("b", b, price=2)
    async with ActorSystem("stage", seed=seed, log=False) as system:
        stage = Stage(system, Market(providers=listings))
        while now() < 3600.0:
            assert (await stage.request()).output == "b"
            await asyncio.sleep(5.0)
    assert len(a.at) == 8
    for (before, after), wait in zip(pairwise(a.at), [10.0, 100.0, *[600.0] * 5], strict=True):
        assert 0.9 * wait <= after - before <= 1.1 * wait + 5.0


async def test_after_the_wait_exactly_one_call_tries_it_however_many_are_waiting():
    a, b = Script(REVOKED, lasts=5.0), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        await stage.request()
        await asyncio.sleep(11.0)
        outputs = await asyncio.gather(*(stage.request() for _ in range(20)))
        assert [one.output for one in outputs] == ["b"] * 20
        assert len(a.calls) == 2
        await stage.assert_at_rest()


async def test_an_answer_ends_it_at_once_and_the_next_refusal_is_the_first_again():
    a, b = Script(REVOKED, REVOKED, "a", REVOKED), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        await stage.request()
        await asyncio.sleep(11.0)
        await stage.request()
        await asyncio.sleep(111.0)
        assert (await stage.request()).output == "a"
        assert (await stage.request()).output == "b"
        await asyncio.sleep(11.0)
        await stage.request()
        assert len(a.calls) == 5


async def test_calls_that_were_under_way_together_count_as_one_refusal():
    a, b = Script(REVOKED, lasts=1.0), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        await asyncio.gather(*(stage.request() for _ in range(10)))
        assert len(a.calls) == 10
        await asyncio.sleep(11.0)
        await stage.request()
        assert len(a.calls) == 11


async def test_an_answer_to_a_call_that_began_before_the_refusal_proves_nothing():
    slow, a, b = Script("a", lasts=5.0), Script(REVOKED), Script("b")

    async def answer(call: ProviderCall) -> Any:
        return await (slow if call.input == "slow" else a)(call)

    async with staged(offer("a", answer, price=1), offer("b", b, price=2)) as stage:
        early = asyncio.create_task(stage.request(input="slow"))
        await steps(5)
        await stage.request()
        assert (await early).output == "a"
        assert (await stage.request()).output == "b"
        assert len(a.calls) == 1


@pytest.mark.parametrize("cause", ["cancelled", "failed", "busy"])
async def test_a_call_that_finds_nothing_out_leaves_it_to_the_next(cause: str):
    outcome: Any = Transient("down", provider="a", outcome="not_started") if cause == "failed" else "a"
    a, b = Script(REVOKED, outcome, "a", lasts=1.0), Script("b")
    listings = offer("a", a, price=1, idempotent="repeatable"), offer("b", b, price=2)
    async with staged(*listings, retry=Retry(max_retries=0)) as stage:
        await stage.request()
        await asyncio.sleep(11.0)
        trial = asyncio.create_task(stage.request())
        await steps(5)
        assert (await stage.request()).output == "b"
        if cause == "cancelled":
            trial.cancel()
        await asyncio.wait([trial])
        assert (await stage.request()).output == "a"
        assert len(a.calls) == 3
        await stage.assert_at_rest()


async def test_a_release_ends_it_at_once():
    a, b = Script(REVOKED, "a"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        assert (await stage.request()).output == "b"
        await stage.ref.ask(Release(provider="a"), timeout=1)
        outputs = await asyncio.gather(*(stage.request() for _ in range(5)))
        assert [one.output for one in outputs] == ["a"] * 5


@pytest.mark.parametrize("is_new", [True, False])
async def test_another_key_ends_it_at_once_and_the_same_listing_made_anew_does_not(is_new: bool):  # noqa: FBT001
    keys: list[str] = []
    key = "revoked"

    def listed_with(key: str) -> Any:
        async def answer(_: ProviderCall) -> str:
            keys.append(key)
            if key == "revoked":
                raise copy.copy(REVOKED)
            return "a"

        return offer("a", answer, price=1)

    async def look_up(_service: str) -> Any:
        return [listed_with(key), offer("b", Script("b"), price=2)]

    async with staged(offer("c", Script("c")), registry=look_up) as stage:
        assert (await stage.request()).output == "b"
        await asyncio.sleep(11.0)
        assert (await stage.request()).output == "b"
        key = "valid" if is_new else key
        stage.actor.targets.named("a").relist((await look_up("s"))[0])
        assert (await stage.request()).output == ("a" if is_new else "b")
        assert keys == ["revoked", "revoked", *["valid"] * is_new]


async def test_a_refusal_that_came_of_a_call_from_before_the_release_is_of_no_account():
    late, a, b = Script(REVOKED, lasts=5.0), Script(REVOKED, "a"), Script("b")

    async def answer(call: ProviderCall) -> Any:
        return await (late if call.input == "late" else a)(call)

    async with staged(offer("a", answer, price=1), offer("b", b, price=2)) as stage:
        early = asyncio.create_task(stage.request(input="late"))
        await steps(5)
        await stage.request()
        await asyncio.sleep(1.0)
        await stage.ref.ask(Release(provider="a"), timeout=1)
        assert (await early).output == "b"
        assert (await stage.request()).output == "a"


async def test_a_provider_that_says_how_long_is_left_for_that_long():
    empty = QuotaExhausted("402", provider="a", retry_after=300.0)
    a, b = Script(empty, "a"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        await stage.request()
        await asyncio.sleep(299.0)
        assert (await stage.request()).output == "b"
        await asyncio.sleep(1.0)
        assert (await stage.request()).output == "a"


async def test_it_is_told_what_a_provider_is_left_alone_for_and_when_that_is_over():
    a, b = Script(REVOKED, REVOKED, "a", EMPTY), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        for wait in (11.0, 111.0, 1.0, 0.0):
            await stage.request()
            await asyncio.sleep(wait)
        lefts, backs = stage.of(ProviderLeft), stage.of(ProviderBack)
        assert [(one.concerns, one.what) for one in lefts] == [("key", "the key")] * 2 + [("account", "the account")]
        assert [round(one.wait, -1) for one in lefts] == [10.0, 100.0, 10.0]
        assert "401 Unauthorized" in lefts[0].cause
        assert [one.what for one in backs] == ["the key"]
        status, _ = await stage.ref.ask(GetStatus(), timeout=1)
        (why,) = status.left
        assert why.startswith("'a' refuses the account, and is left alone for")
        assert why.endswith("402 Payment Required; correct that, and release it or list it with a new key")
        await stage.ref.ask(Release(provider="a"), timeout=1)
        assert [one.what for one in stage.of(ProviderBack)] == ["the key", "the account"]
        status, _ = await stage.ref.ask(GetStatus(), timeout=1)
        assert status.left == ()


async def test_a_name_that_one_input_was_refused_for_is_no_news_and_that_two_were_is():
    a, b = Models("good"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        await stage.request(input={"model": "bad", "prompt": "one"})
        assert stage.of(ProviderLeft) == []
        await stage.request(input={"model": "bad", "prompt": "two"})
        (left,) = stage.of(ProviderLeft)
        assert (left.concerns, left.what) == ("name", "'bad' for 's'")


async def test_what_a_provider_said_to_one_tenant_is_told_to_no_other():
    a = Script(REVOKED)
    async with staged(offer("a", a)) as stage:
        for tenant, is_told in (("acme", True), ("acme", True), ("other", False)):
            with pytest.raises(AllProvidersFailed) as failed:
                await stage.request(options=RequestOptions(tenant=tenant, timeout=5.0))
            assert ("401 Unauthorized" in str(failed.value)) == is_told
        assert "'a' refuses the key, and is left alone for 10 s; correct that" in str(failed.value)


@pytest.mark.parametrize("seed", range(repeated(200)))
async def test_while_a_provider_is_left_alone_one_call_at_most_tries_it_whatever_becomes_of_the_calls(seed: int):
    rng = Random(seed)
    refused_at = -1.0  # When it was refused last, until an answer.
    trials = most = all_trials = 0

    async def answer(_: ProviderCall) -> str:
        nonlocal refused_at, trials, most, all_trials
        began, outcome = now(), rng.random()
        is_trial = 0.0 <= refused_at < began
        trials, all_trials = trials + is_trial, all_trials + is_trial
        most = max(most, trials)
        try:
            await asyncio.sleep(rng.uniform(0.1, 5.0))
            if outcome < 0.5:
                refused_at = now() if is_trial or refused_at < 0.0 else refused_at
                raise copy.copy(rng.choice(FOR_ALL))
            if outcome < 0.7:
                raise flaky("a")
            refused_at = -1.0 if is_trial else refused_at
            return "a"
        finally:
            trials -= is_trial

    listing = offer("a", answer, idempotent="repeatable", max_concurrency=20)
    async with ActorSystem("stage", seed=seed, log=False) as system:
        stage = Stage(system, Market(providers=[listing], hedge=None))

        async def ask() -> None:
            await asyncio.sleep(rng.uniform(0.0, 1000.0))
            await stage.request(timeout=rng.uniform(1.0, 200.0))

        asking = [asyncio.create_task(ask()) for _ in range(100)]
        for task in rng.sample(asking, 20):
            asyncio.get_running_loop().call_later(rng.uniform(0.0, 1000.0), task.cancel)
        await asyncio.gather(*asking, return_exceptions=True)
        assert (most, trials) == (1, 0)
        assert all_trials >= 3
        await stage.assert_at_rest()
        assert list(stage.actor.broken_invariants()) == []


async def test_if_all_are_left_alone_a_request_waits_as_long_as_its_deadline_allows():
    a = Script(REVOKED, "a")
    async with staged(offer("a", a)) as stage:
        with pytest.raises(AllProvidersFailed):
            await stage.request()
        assert [(await one).output for one in [stage.request(), stage.request()]] == ["a", "a"]
        assert 9.0 <= now() <= 11.0


async def test_if_all_are_left_alone_for_longer_the_error_names_each_cause_and_how_it_ends():
    a, b = Script(REVOKED), Script(QuotaExhausted("no credit left", provider="b"))
    async with staged(offer("a", a), offer("b", b)) as stage:
        with pytest.raises(AllProvidersFailed):
            await stage.request()
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(timeout=5.0)
        assert now() < 1.0
        assert failed.value.attempts == ()
        assert [type(one) for one in failed.value.refused] == [LeftAlone, LeftAlone]
        for words in (
            "'a' refuses the key",
            "401 Unauthorized",
            "'b' refuses the account",
            "no credit left",
            "for 10 s",
        ):
            assert words in str(failed.value)
        assert "release it" in str(failed.value)
        assert (failed.value.outcome, failed.value.charged) == ("not_started", "no")


async def test_the_requests_that_wait_for_a_trial_give_up_when_it_is_refused():
    a = Script(REVOKED, lasts=1.0)
    async with staged(offer("a", a)) as stage:
        with pytest.raises(AllProvidersFailed):
            await stage.request()
        outcomes = await asyncio.gather(*(stage.request() for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in outcomes] == [AllProvidersFailed] * 5
        assert len(a.calls) == 2
        assert now() < 14.0
        await stage.assert_at_rest()


async def test_a_name_is_left_out_for_all_only_when_a_second_input_with_it_is_refused():
    a, b = Models("good"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:

        async def served_by(model: str, prompt: str) -> str:
            return (await stage.request(input={"model": model, "messages": [{"content": prompt}]})).output

        assert [await served_by("bad", "one") for _ in range(3)] == ["b"] * 3
        assert len(a.calls) == 1  # The same input is not tried again.
        assert await served_by("bad", "two") == "b"
        assert len(a.calls) == 2
        assert [await served_by("bad", prompt) for prompt in ("three", "four")] == ["b", "b"]
        assert len(a.calls) == 2  # Two inputs were enough.
        assert await served_by("good", "three") == "a"
        await asyncio.sleep(11.0)
        assert await served_by("good", "three") == "a"
        assert [await served_by("bad", prompt) for prompt in ("five", "six")] == ["b", "b"]
        assert len(a.calls) == 5


class AStruct(msgspec.Struct):
    model: str
    prompt: str


@dataclasses.dataclass(slots=True)
class ADataclass:
    model: str
    prompt: str


class AnObject:
    def __init__(self, model: str, prompt: str) -> None:
        self.model, self.prompt = model, prompt


class Nested:
    def __init__(self, model: str, prompt: str) -> None:
        self.asked = [{"of": AStruct(model, prompt)}]


@pytest.mark.parametrize("make", [AStruct, ADataclass, AnObject, Nested])
async def test_the_names_in_an_object_are_told_from_one_another_as_those_in_json(make: Any):
    class Known(Models):
        async def __call__(self, call: ProviderCall) -> Any:
            asked = call.input.asked[0]["of"] if make is Nested else call.input
            return await super().__call__(msgspec.structs.replace(call, input={"model": asked.model}))

    models = Known("good")
    async with staged(offer("a", models)) as stage:
        for prompt in ("one", "one", "two"):
            with pytest.raises(AllProvidersFailed):
                await stage.request(input=make("bad", prompt))
        assert len(models.calls) == 2  # The same input again, in an object of its own, is no second one.
        assert (await stage.request(input=make("good", "three"))).output == "a"
        with pytest.raises(AllProvidersFailed) as caught:
            await stage.request(input=make("bad", "three"), timeout=1.0)
        assert [type(one) for one in caught.value.refused] == [LeftAlone]
    assert len(models.calls) == 3


async def test_a_provider_that_states_a_short_wait_again_and_again_is_left_for_longer_all_the_same():
    script = Script(QuotaExhausted("402: come back in 1 s", provider="a", retry_after=1.0))
    async with staged(offer("a", script), offer("b", Script("b"), price=1)) as stage:
        for _ in range(1_800):
            assert (await stage.request()).output == "b"
            await asyncio.sleep(2.0)
    assert len(script.at) <= 9


async def test_two_names_that_are_refused_once_each_keep_no_other_away():
    a, b = Models("good"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        for number in range(100):
            assert (await stage.request(input={"model": f"bad-{number}"})).output == "b"
        assert (await stage.request(input={"model": "good"})).output == "a"
        assert len(stage.actor.targets.named("a").state.refusals.all) <= 32


async def test_a_name_that_stands_in_no_input_is_left_out_for_its_service_after_two_inputs():
    a, b = Models("good", said="no such voice"), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        assert (await stage.request(input={"model": "x"})).output == "b"
        assert (await stage.request(input={"model": "good"})).output == "a"
        assert (await stage.request(input={"model": "x"})).output == "b"
        assert (await stage.request(input={"model": "y"})).output == "b"
        assert (await stage.request(input={"model": "good"})).output == "b"
        await asyncio.sleep(11.0)
        assert (await stage.request(input={"model": "good"})).output == "a"  # It serves: they were the inputs' fault.
        assert (await stage.request(input={"model": "good", "seed": 2})).output == "a"


async def test_refused_content_ends_the_request_unless_it_says_next():
    a, b = Script(INDECENT), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        with pytest.raises(Permanent, match="flagged"):
            await stage.request()
        assert b.calls == []
        result = await stage.request(options=RequestOptions(on_refused="next"))
        assert result.output == "b"
        assert len(a.calls) == 2


async def test_a_refusal_after_a_call_that_may_have_been_paid_pays_no_other():
    refused = Permanent("401", provider="a", scope="provider", concerns="key", charged="held")
    a, b = Script(refused), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        with pytest.raises(OutcomeUnknown):
            await stage.request()
        assert b.calls == []
        assert (await stage.request()).output == "b"
        assert len(a.calls) == 1
