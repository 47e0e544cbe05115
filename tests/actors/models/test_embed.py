"""Embeddings: one model alone, in parts that a provider takes, each paid for once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from actors import FunctionTransport, Listing, Market, Provider, ProviderReply, RequestOptions, Supervisor
from actors.errors import AllProvidersFailed, BudgetExceeded, NoProvider, OutcomeUnknown, Permanent, Transient
from actors.fake import FakeConfig, FakeModel, fake_server
from actors.ledger import GetStatement, OpenAccount
from actors.models import EmbedFailed, compatible, embed, openai
from actors.models.embed_parts import checked_inputs, split
from runtime import ActorSystem


class Vectors:
    """A provider whose vectors tell which input they are of, and which fails as it is told."""

    def __init__(self, *, dimensions=2, fails=lambda *_: None):
        self.calls: list[list] = []
        self.keys: Counter[str] = Counter()
        self.under_way = self.most = 0
        self._dimensions, self._fails = dimensions, fails

    async def __call__(self, call):
        body = call.input.body
        self.calls.append(body["input"])
        self.keys[call.idempotency_key] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.01)
        finally:
            self.under_way -= 1
        error = self._fails(body, len(self.calls))
        if error is not None:
            raise error
        count = body.get("dimensions") or self._dimensions
        data = [
            {"index": index, "embedding": [float(one[1:]), *[0.5] * (count - 1)]}
            for index, one in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
        return ProviderReply(output={"data": data[::-1], "model": "vec-1", "usage": usage})

    def counted(self):
        """Return how often each part was asked for, by its first input."""
        return Counter(inputs[0] for inputs in self.calls)

    def listing(self, name="alder", *, service="vec", price="0.01", **offered) -> Listing:
        return Listing(
            provider=Provider(name=name, services={service}, price=price, **offered),
            transport=lambda: FunctionTransport(self, paid=True, idempotent="no"),
        )


def texts(count):
    return [f"x{number}" for number in range(count)]


@pytest.fixture
async def stage():
    """Return a function that starts a supervisor over some listings."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*listings, **market):
            system = await stack.enter_async_context(ActorSystem("embed", log=False))
            return system.spawn(lambda: Supervisor(Market(providers=listings, **market)))

        yield start


async def spent(supervisor):
    statement = await supervisor.ask(GetStatement(), timeout=1.0)
    return str(statement.settled), int(statement.held + statement.reserved)


async def test_vectors_come_in_the_order_of_the_inputs_with_all_figures(stage):
    alder = Vectors()
    result = await embed(await stage(alder.listing()), model="vec", inputs=texts(3), idempotency_key="k")
    assert result.vectors == ((0.0, 0.5), (1.0, 0.5), (2.0, 0.5))
    assert (result.provider, result.model, str(result.cost)) == ("alder", "vec-1", "$0.01")
    assert result.usage == {"prompt_tokens": 3, "total_tokens": 3}
    assert ([part.key for part in result.parts], len(alder.calls)) == (["k"], 1)


async def test_inputs_beyond_the_list_of_a_provider_go_in_parts_with_keys_and_money_of_their_own(stage):
    alder, birch = Vectors(), Vectors()
    supervisor = await stage(alder.listing(max_inputs=3), birch.listing("birch", max_inputs=50, reputation=99.0))
    result = await embed(supervisor, model="vec", inputs=texts(10), idempotency_key="k", budget="0.04")
    assert [one[0] for one in result.vectors] == list(range(10))
    assert [part.key for part in result.parts] == ["k#0", "k#1", "k#2", "k#3"]
    assert sorted((alder.keys + birch.keys).values()) == [1, 1, 1, 1]
    assert [(part.start, part.stop) for part in result.parts] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert (str(result.cost), result.usage["total_tokens"]) == ("$0.04", 10)
    assert await spent(supervisor) == ("$0.04", 0)


async def test_inputs_beyond_the_tokens_of_a_provider_go_in_parts(stage):
    alder = Vectors()
    supervisor = await stage(alder.listing(max_input_tokens=5))
    await embed(supervisor, model="vec", inputs=["x1", "x22", "x3", "x4", "x55555"])
    assert alder.calls == [["x1", "x22"], ["x3", "x4"], ["x55555"]]


async def test_only_a_failed_part_is_asked_for_again(stage):
    def fails(body, _):
        return Transient("no", outcome="not_started") if "x4" in body["input"] and alder.counted()["x4"] < 3 else None

    alder = Vectors(fails=fails)
    supervisor = await stage(alder.listing(max_inputs=2))
    result = await embed(supervisor, model="vec", inputs=texts(8), idempotency_key="k")
    assert alder.counted() == {"x0": 1, "x2": 1, "x4": 3, "x6": 1}
    assert sorted(alder.keys.values()) == [1, 1, 1, 3]
    assert len(result.vectors) == 8
    assert await spent(supervisor) == ("$0.04", 0)


async def test_the_error_names_what_was_paid_and_resumes(stage):
    def fails(body, _):
        return Permanent("such a text", outcome="not_started") if is_bad and "x3" in body["input"] else None

    is_bad, alder = True, Vectors(fails=fails)
    supervisor = await stage(alder.listing(max_inputs=2))
    with pytest.raises(EmbedFailed) as caught:
        await embed(supervisor, model="vec", inputs=texts(6), idempotency_key="k", dimensions=4)
    failed = caught.value
    assert [part.charged for part in failed.parts] == ["yes", "no", "yes"]
    assert [part.key for part in failed.failed] == ["k#1"]
    assert (failed.charged, failed.outcome) == ("yes", "done")
    assert "1 of 3 parts of the inputs for 'vec' failed" in str(failed)
    assert "k#1 (inputs 2 to 3): such a text" in str(failed)
    assert "paid, $0.02: k#0 (inputs 0 to 1), k#2 (inputs 4 to 5)" in str(failed)

    for wrong in ({"inputs": texts(5)}, {"inputs": texts(6), "dimensions": 3}, {"inputs": texts(6), "model": "other"}):
        with pytest.raises((ValueError, NoProvider)):
            await embed(supervisor, **({"model": "vec", "dimensions": 4} | wrong), resume=failed)
    with pytest.raises(TypeError, match="resume must be the EmbedFailed"):
        await embed(supervisor, model="vec", inputs=texts(6), resume=failed.failed)

    is_bad = False
    result = await embed(supervisor, model="vec", inputs=texts(6), dimensions=4, resume=failed)
    assert [one[0] for one in result.vectors] == list(range(6))
    assert alder.counted() == {"x0": 1, "x2": 2, "x4": 1}
    assert sorted(alder.keys.values()) == [1, 1, 2]
    assert str(result.cost) == "$0.03"
    assert await spent(supervisor) == ("$0.03", 0)


async def test_a_part_that_may_have_been_paid_is_named_and_held(stage):
    def fails(body, _):
        return OutcomeUnknown("lost", charged="held") if "x0" in body["input"] else None

    alder = Vectors(fails=fails)
    supervisor = await stage(alder.listing(max_inputs=1))
    with pytest.raises(EmbedFailed) as caught:
        await embed(supervisor, model="vec", inputs=texts(2), idempotency_key="k", budget="1")
    assert (caught.value.charged, caught.value.outcome, len(caught.value.held)) == ("held", "unknown", 1)
    assert "perhaps paid: k#0 (inputs 0 to 0)" in str(caught.value)
    # As long as that is not known, it is not paid for again.
    for budget in (None, "1"):
        with pytest.raises(EmbedFailed):
            await embed(supervisor, model="vec", inputs=texts(2), budget=budget, resume=caught.value)
    assert alder.counted() == {"x0": 1, "x1": 1}
    assert await spent(supervisor) == ("$0.01", 10_000)


@pytest.mark.parametrize("account", [None, "team"])
async def test_all_parts_together_stay_within_the_budget(stage, account):
    alder = Vectors()
    supervisor = await stage(alder.listing(max_inputs=1))
    if account is not None:
        await supervisor.ask(OpenAccount(name=account, cap="1"), timeout=1.0)
    with pytest.raises(EmbedFailed) as caught:
        await embed(supervisor, model="vec", inputs=texts(5), budget="0.03", account=account)
    assert [part.charged for part in caught.value.parts].count("yes") == 3
    assert all(isinstance(part.error, BudgetExceeded) for part in caught.value.failed)
    assert await spent(supervisor) == ("$0.03", 0)


async def test_parts_go_out_side_by_side_but_not_all_at_once(stage):
    alder = Vectors()
    await embed(await stage(alder.listing(max_inputs=1, price="0")), model="vec", inputs=texts(40))
    assert alder.most == 8


async def test_who_leaves_takes_nothing_along(stage):
    alder = Vectors()
    supervisor = await stage(alder.listing(max_inputs=1))
    task = asyncio.create_task(embed(supervisor, model="vec", inputs=texts(40), budget="1"))
    await asyncio.sleep(0.015)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await asyncio.sleep(1.0)
    assert (alder.under_way, len(alder.calls)) == (0, 16)
    settled, open_money = await spent(supervisor)
    assert open_money == 80_000  # The calls that were cut off may have been paid.
    assert settled == "$0.08"


async def test_only_providers_of_the_model_itself_are_asked(stage):
    alder, birch, cedar = Vectors(fails=lambda *_: Transient("down", outcome="not_started")), Vectors(), Vectors()
    supervisor = await stage(
        alder.listing(model="vec", reputation=99.0),
        birch.listing("birch", model="vec"),
        cedar.listing("cedar", model="other", reputation=100.0),
    )
    result = await embed(supervisor, model="vec", inputs=["x1"])
    assert result.provider == "birch"
    assert (len(cedar.calls), len(alder.calls)) == (0, 1)


async def test_a_service_of_several_models_is_refused(stage):
    alder, birch = Vectors(), Vectors()
    supervisor = await stage(
        alder.listing(service="embeddings", model="vec-1"), birch.listing("birch", service="embeddings", model="vec-2")
    )
    with pytest.raises(Permanent, match="offered by several models, vec-1, vec-2, and vectors of two do not mix"):
        await embed(supervisor, model="embeddings", inputs=["x1"])
    with pytest.raises(TypeError, match="vectors of two models do not mix"):
        await embed(supervisor, model=["vec-1", "vec-2"], inputs=["x1"])
    assert alder.calls == birch.calls == []


async def test_a_service_of_one_model_at_several_providers_is_that_model(stage):
    supervisor = await stage(
        Vectors().listing(service="embeddings", model="v"), Vectors().listing("birch", service="embeddings", model="v")
    )
    assert len((await embed(supervisor, model="embeddings", inputs=texts(2))).vectors) == 2


async def test_vectors_of_different_lengths_are_not_mixed(stage):
    alder = Vectors(fails=lambda body, _: Transient("no", outcome="not_started") if "x1" in body["input"] else None)
    supervisor = await stage(
        alder.listing(max_inputs=1, reputation=99.0), Vectors(dimensions=3).listing("birch", reputation=1.0)
    )
    with pytest.raises(EmbedFailed, match="its vectors have 3 dimensions, and those before 2") as caught:
        await embed(supervisor, model="vec", inputs=texts(3), idempotency_key="k")
    assert [part.charged for part in caught.value.parts] == ["yes", "yes", "yes"]
    assert str(caught.value.parts[1].cost) == "$0.01"


async def test_a_single_part_ends_in_its_own_error(stage):
    supervisor = await stage(Vectors(fails=lambda *_: Permanent("no")).listing())
    with pytest.raises(Permanent, match="no"):
        await embed(supervisor, model="vec", inputs="x1")
    supervisor = await stage(Vectors(fails=lambda *_: Transient("no", outcome="not_started")).listing())
    with pytest.raises(AllProvidersFailed):
        await embed(supervisor, model="vec", inputs="x1", options=RequestOptions(timeout=60.0))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"inputs": []}, ValueError, "at least one text"),
        ({"inputs": ["a", ""]}, ValueError, "input 1 is empty"),
        ({"inputs": ["a", 3]}, TypeError, "input 1 must be a text, or a list of tokens, got 3"),
        ({"inputs": ["a", [1, "b"]]}, TypeError, "input 1 must be a text"),
        ({"inputs": 3}, TypeError, "inputs must be a list of texts"),
        ({"inputs": "a", "dimensions": 0}, ValueError, "dimensions must be >= 1"),
        ({"inputs": "a", "dimension": 3}, TypeError, "did you mean 'dimensions'"),
        ({"inputs": "a", "extra_body": 3}, TypeError, "extra_body must be a dict"),
        ({"inputs": "a", "model": ""}, ValueError, "model must be the name of a model"),
    ],
)
async def test_a_mistake_is_told_before_anything_is_asked(stage, options, error, said):
    with pytest.raises(error, match=said):
        await embed(await stage(Vectors().listing()), **({"model": "vec"} | options))


def test_inputs_are_texts_or_tokens():
    assert checked_inputs(("a", "b")) == ["a", "b"]
    assert split(texts(5), max_inputs=2, max_tokens=100) == [(0, 2), (2, 4), (4, 5)]
    assert split([[1, 2, 3], [4]], max_inputs=9, max_tokens=3) == [(0, 1), (1, 2)]


def test_a_model_for_embeddings_is_no_model_for_chats():
    small = openai("text-embedding-3-small", api_key="k")
    assert small.provider.services == {"text-embedding-3-small"}
    assert (small.provider.model, small.provider.max_inputs) == ("text-embedding-3-small", 2_048)
    assert (small.provider.max_input_tokens, small.provider.window) == (300_000, None)
    mistral = compatible("mistral-embed", preset="mistral", api_key="k")
    assert (mistral.provider.max_inputs, mistral.provider.max_input_tokens) == (512, 16_384)
    chats = openai("gpt-5-mini", api_key="k").provider
    assert (chats.max_input_tokens, chats.window) == (None, 400_000)
    same = compatible(
        "openai/text-embedding-3-small", preset="openrouter", api_key="k", known_as="text-embedding-3-small"
    )
    assert same.provider.services == {"openai/text-embedding-3-small", "text-embedding-3-small"}
    assert same.provider.model == small.provider.model


@pytest.mark.real_time
@pytest.mark.parametrize("written", [{}, {"encoding_format": "base64"}, {"encoding_format": "float"}])
async def test_a_real_server_is_read_alike_in_numbers_and_in_base64(stage, written):
    config = FakeConfig(models=(FakeModel(name="embedder", kind="embedding"),))
    async with fake_server(config) as server:
        listing = compatible("embedder", base_url=f"{server.url}/v1", price="0.001", max_inputs=2)
        result = await embed(await stage(listing), model="embedder", inputs=["a", "b", [5, 6]], dimensions=8, **written)
    assert [len(one) for one in result.vectors] == [8, 8, 8]
    assert all(abs(sum(part * part for part in one) - 1) < 1e-5 for one in result.vectors)
    assert (result.provider, result.model, str(result.cost)) == ("embedder", "embedder", "$0.002")
    assert result.usage["total_tokens"] > 0
