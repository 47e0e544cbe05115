"""What a body needs: a bound that no tokenizer passes, and an estimate that learns from the calls before."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.money import Micros
from actors.tariffs import Demand, Tariff, Usage
from actors.tariffs.estimate import demand_of, form_of, with_max_output
from actors.tariffs.learned import MAX_KINDS, CallHistory, KindOfCall

TARIFF = Tariff(input="0.25", output="2")


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def need(body: Any) -> Demand:
    demand = demand_of(body)
    assert demand is not None
    return demand


@pytest.mark.parametrize(
    ("body", "form", "bound"),
    [
        (said("x", max_tokens=7), "chat", 7),
        (said("x", max_completion_tokens=7, n=3), "chat", 21),
        (said("x", system="s", max_tokens=9), "messages", 9),
        (said("x"), "chat", None),
        ({"input": "x", "max_output_tokens": 5, "model": "gpt-5"}, "responses", 5),
        ({"input": ["x", "y"], "model": "text-embedding-3-small"}, "embeddings", 0),
        (said("x", max_tokens=-1), "chat", None),
        (said("x", max_tokens="9"), "chat", None),
    ],
)
def test_the_bound_of_the_output_is_that_of_the_request(body: Any, form: str, bound: int | None) -> None:
    assert form_of(body) == form
    assert need(body).output_bound == bound


def test_a_chosen_bound_is_put_into_a_copy() -> None:
    body = said("x")
    assert with_max_output(body, 5)["max_completion_tokens"] == 5
    assert body == said("x")
    assert with_max_output({"input": "x"}, 5)["max_output_tokens"] == 5
    assert with_max_output({"system": "", "messages": []}, 5)["max_tokens"] == 5
    assert with_max_output("x", 5) == "x"


def test_data_in_base64_is_no_text() -> None:
    data = "data:image/png;base64," + "A" * 1_000_000
    image = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": data}}]
    small, large = need(said("What is it?")), need({"messages": [{"role": "user", "content": image}]})
    assert large.input_bound < small.input_bound + 51_000
    assert large.kind == "chat text images"
    source = {"type": "base64", "media_type": "application/pdf", "data": "A" * 4_000_000}
    document = need({"messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]})
    assert 200_000 <= document.input_bound < 1_000_000
    as_text = need(said("A" * 1_000_000))
    assert as_text.input_bound >= 1_000_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values, json_values)
def test_the_bound_is_at_least_the_bytes_of_every_string(content: Any, other: Any) -> None:
    body = {"messages": [{"role": "user", "content": content}], "anything": other}

    def strings(value: Any) -> int:
        if isinstance(value, str):
            return len(value.encode("utf-8", "surrogatepass"))
        if isinstance(value, dict):
            return sum(map(strings, [*value, *value.values()]))
        return sum(map(strings, value)) if isinstance(value, list) else 0

    if "type" not in json.dumps(body):
        assert need(body).input_bound >= strings(body)


@given(json_values)
def test_no_input_makes_it_raise(value: Any) -> None:
    for body in (value, {"messages": value}, {"input": value, "tools": value, "n": value, "max_tokens": value}):
        demand = demand_of(body)
        assert demand is None or demand.input_bound >= demand.answers - demand.answers
        with_max_output(body, 5)


def test_a_body_nested_deeply_is_counted() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert need({"messages": deep}).input_bound > 0


WORDS = [
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "he",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "one",
    "have",
    "this",
    "from",
]
TOKENIZERS = {
    "english": (WORDS, 4.3),
    "figures": ([str(n * 7919 % 10**6) for n in range(40)], 2.1),
    "chinese": (["模型", "价格", "请求", "回答"], 2.6),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_after_50_calls_of_a_kind_the_mean_error_of_the_estimate_is_5_percent_at_most(kind: str, seed: int) -> None:
    """A tokenizer is played by so many bytes a token, 5 % more or less from text to text."""
    rng, history = Random(seed), CallHistory()
    words, bytes_per_token = TOKENIZERS[kind]
    errors: list[float] = []
    for call in range(250):
        text = " ".join(rng.choices(words, k=rng.randint(50, 3_000)))
        demand = need(said(text, max_tokens=500))
        actual = round(len(text.encode()) / bytes_per_token * rng.uniform(0.95, 1.05)) + 8
        refined = history.of(demand).refined(demand)
        if call >= 50:
            errors.append((refined.input_estimate - actual) / actual)
        usage = Usage(input=actual, output=rng.randint(10, 490))
        history.learn(demand, usage, cost=TARIFF.cost(usage), estimated=TARIFF.estimate(refined))
    assert abs(sum(errors) / len(errors)) <= 0.05
    assert sum(map(abs, errors)) / len(errors) <= 0.05


@pytest.mark.parametrize("seed", range(5))
def test_the_upper_figure_is_exceeded_by_1_percent_of_the_calls_at_most(seed: int) -> None:
    rng, history, exceeded, told = Random(seed), CallHistory(), 0, 0
    for _ in range(3_000):
        demand = need(said("word " * rng.randint(10, 500), max_tokens=2_000))
        refined = history.of(demand).refined(demand)
        estimated = TARIFF.estimate(refined)
        usage = Usage(
            input=round(demand.input_estimate * rng.uniform(0.8, 1.3)), output=min(2_000, int(rng.expovariate(1 / 300)))
        )
        cost = TARIFF.cost(usage)
        upper = history.of(demand).upper(estimated)
        if upper is not None:
            told += 1
            exceeded += cost > upper
        history.learn(demand, usage, cost=cost, estimated=estimated)
    assert told >= 2_700
    assert exceeded / told <= 0.01


def test_estimates_stay_within_the_bounds() -> None:
    known = KindOfCall(calls=9, input_ratio=1e9, output=1e9)
    refined = known.refined(need(said("x", max_tokens=10)))
    assert refined.output_estimate == 10
    assert refined.input_estimate == refined.input_bound


def test_kinds_beyond_the_most_are_learned_together() -> None:
    history = CallHistory()
    for number in range(MAX_KINDS + 50):
        demand = Demand(input_bound=10, input_estimate=5, kind=str(number))
        history.learn(demand, Usage(input=10, output=1), cost=Micros(1), estimated=Micros(1))
    assert repr(history) == f"<CallHistory of {MAX_KINDS + 1} kinds>"
    assert history.of(Demand(input_bound=1, input_estimate=1, kind="new")).calls == 50
