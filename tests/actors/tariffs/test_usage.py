"""Usage of each dialect, by the example of its documentation; what cannot be read is unknown, and never zero."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tariffs import Usage
from actors.tariffs.usage import DIALECTS, read_usage

EXAMPLES: list[tuple[str, dict[str, Any], Usage]] = [
    (
        "openai",  # platform.openai.com/docs/guides/prompt-caching
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(input=86, cache_read=1920, output=300),
    ),
    (
        "openai",  # with tokens of a cache that was written, which are inside too
        {
            "prompt_tokens": 3000,
            "completion_tokens": 500,
            "total_tokens": 3500,
            "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 1500},
            "completion_tokens_details": {"reasoning_tokens": 320},
        },
        Usage(input=476, cache_read=1024, cache_write=1500, output=180, reasoning=320),
    ),
    (
        "responses",  # platform.openai.com/docs/api-reference/responses/object
        {
            "input_tokens": 328,
            "input_tokens_details": {"cached_tokens": 128},
            "output_tokens": 52,
            "output_tokens_details": {"reasoning_tokens": 40},
            "total_tokens": 380,
        },
        Usage(input=200, cache_read=128, output=12, reasoning=40),
    ),
    (
        "anthropic",  # docs.claude.com/en/docs/build-with-claude/prompt-caching, "1-hour cache duration"
        {
            "input_tokens": 2048,
            "cache_read_input_tokens": 1800,
            "cache_creation_input_tokens": 248,
            "output_tokens": 503,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
            "service_tier": "standard",
        },
        Usage(input=2048, cache_read=1800, cache_write=148, cache_write_1h=100, output=503),
    ),
    (
        "anthropic",  # the start of a stream, where caches are null
        {
            "input_tokens": 25,
            "output_tokens": 1,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "cache_creation": None,
        },
        Usage(input=25, output=1),
    ),
    (
        "deepseek",  # api-docs.deepseek.com/api/create-chat-completion
        {
            "completion_tokens": 170,
            "prompt_tokens": 100,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "total_tokens": 270,
            "completion_tokens_details": {"reasoning_tokens": 150},
        },
        Usage(input=36, cache_read=64, output=20, reasoning=150),
    ),
    (
        "xai",  # docs.x.ai/docs/guides/reasoning: text_tokens includes the cached ones, and reasoning is beside
        {
            "prompt_tokens": 37,
            "completion_tokens": 530,
            "total_tokens": 809,
            "prompt_tokens_details": {"text_tokens": 37, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 242, "audio_tokens": 0},
            "num_sources_used": 0,
        },
        Usage(input=29, cache_read=8, output=530, reasoning=242),
    ),
    (
        "mistral",  # docs.mistral.ai/api
        {"prompt_tokens": 16, "completion_tokens": 34, "total_tokens": 50},
        Usage(input=16, output=34),
    ),
    (
        "gemini",  # ai.google.dev/gemini-api/docs/openai: the thoughts are in the sum alone
        {"completion_tokens": 12, "prompt_tokens": 9, "total_tokens": 321},
        Usage(input=9, output=12, reasoning=300),
    ),
    (
        "openrouter",  # openrouter.ai/docs/use-cases/usage-accounting
        {
            "completion_tokens": 2,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "cost": 0.95,
            "cost_details": {"upstream_inference_cost": 19},
            "prompt_tokens": 194,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "total_tokens": 196,
        },
        Usage(input=194, output=2, cost="0.95"),
    ),
    (
        "groq",  # console.groq.com/docs/api-reference: times beside the counts
        {
            "queue_time": 0.037493756,
            "prompt_tokens": 18,
            "prompt_time": 0.000680594,
            "completion_tokens": 556,
            "completion_time": 0.463333333,
            "total_tokens": 574,
            "total_time": 0.464013927,
            "prompt_tokens_details": None,
        },
        Usage(input=18, output=556),
    ),
    (
        "azure",  # learn.microsoft.com, "Prompt caching"
        {
            "completion_tokens": 1518,
            "prompt_tokens": 1566,
            "total_tokens": 3084,
            "completion_tokens_details": {"audio_tokens": None, "reasoning_tokens": 576},
            "prompt_tokens_details": {"audio_tokens": None, "cached_tokens": 1408},
        },
        Usage(input=158, cache_read=1408, output=942, reasoning=576),
    ),
    # The documents of these three have the fields alone: the figures are made up.
    (
        "together",  # cached tokens stand beside the sums, and are inside
        {"prompt_tokens": 120, "completion_tokens": 40, "total_tokens": 160, "cached_tokens": 100},
        Usage(input=20, cache_read=100, output=40),
    ),
    (
        "cerebras",
        {
            "prompt_tokens": 384,
            "prompt_tokens_details": {"cached_tokens": 128},
            "completion_tokens": 60,
            "completion_tokens_details": {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
            "total_tokens": 444,
        },
        Usage(input=256, cache_read=128, output=60),
    ),
    (
        "fireworks",
        {
            "prompt_tokens": 700,
            "completion_tokens": 30,
            "total_tokens": 730,
            "prompt_tokens_details": {"cached_tokens": 640},
        },
        Usage(input=60, cache_read=640, output=30),
    ),
    ("chat", {"prompt_tokens": 7, "completion_tokens": 17, "total_tokens": 24}, Usage(input=7, output=17)),
    ("embeddings", {"prompt_tokens": 8, "total_tokens": 8}, Usage(input=8)),
]


def test_every_dialect_has_an_example() -> None:
    assert {dialect for dialect, _, _ in EXAMPLES} == set(DIALECTS)


@pytest.mark.parametrize(("dialect", "told", "usage"), EXAMPLES)
def test_the_example_of_each_documentation(dialect: str, told: dict[str, Any], usage: Usage) -> None:
    assert read_usage(told, dialect) == usage


def test_reasoning_is_inside_if_the_sum_says_so() -> None:
    told = {"prompt_tokens": 10, "completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 30}}
    assert read_usage(told | {"total_tokens": 60}, "xai") == Usage(input=10, output=20, reasoning=30)
    assert read_usage(told | {"total_tokens": 90}, "openai") == Usage(input=10, output=50, reasoning=30)


def test_a_cost_in_parts_of_a_dollar_rounds_up() -> None:
    told = {"prompt_tokens": 1, "completion_tokens": 1, "cost_in_usd_ticks": 37_756_001}
    usage = read_usage(told, "xai")
    assert usage is not None
    assert usage.cost == 3_776
    unread = read_usage({"prompt_tokens": 1, "completion_tokens": 1, "cost": "a lot"}, "openrouter")
    assert unread == Usage(input=1, output=1)


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        [],
        "12",
        {"prompt_tokens": 5},
        {"completion_tokens": 5},
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 1.5, "completion_tokens": 5},
        {"prompt_tokens": "7", "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 10**30, "completion_tokens": 5},
        {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}},
        {"prompt_tokens": 5, "completion_tokens": 5, "prompt_tokens_details": 3},
        {"prompt_tokens": 5, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 6}},
        {"prompt_tokens": float("nan"), "completion_tokens": 5},
    ],
)
def test_what_cannot_be_is_unknown(told: object) -> None:
    assert read_usage(told, "openai") is None


def test_more_written_for_an_hour_than_at_all_is_unknown() -> None:
    told = {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 9}}
    assert read_usage(told, "anthropic") is None


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
NAMES = sorted({name for form in DIALECTS.values() for path in (*form.input, *form.output) for name in path})
DETAILS = {"prompt_tokens_details": json, "cache_creation": json, "cost": json, "total_tokens": json}


@given(st.sampled_from(sorted(DIALECTS)), st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, json) | DETAILS))
def test_no_body_makes_the_reader_raise_or_answer_nothing_used(dialect: str, told: dict[str, Any]) -> None:
    usage = read_usage(told, dialect)
    assert usage is None or not usage.is_empty or usage.cost
