"""Listings of models in one call: what they offer, where their key comes from, and what is told at once."""

from __future__ import annotations

import pytest
from loguru import logger

from actors.model_calls import Preset
from actors.models import anthropic, compatible, openai


def test_a_model_is_found_by_its_own_name_and_by_its_service():
    assert openai("gpt-5-mini", api_key="k").provider.services == {"gpt-5-mini", "chat"}
    assert anthropic("claude-sonnet-4-6", api_key="k", service={"draft", "review"}).provider.services == {
        "claude-sonnet-4-6",
        "draft",
        "review",
    }


def test_the_key_comes_from_the_variable_of_the_preset_and_is_missed_at_once(monkeypatch):
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"the key of 'groq/llama' is missing: set GROQ_API_KEY, or give api_key="):
        compatible("llama", preset="groq")
    monkeypatch.setenv("GROQ_API_KEY", "gsk-from-the-environment")
    listing = compatible("llama", preset="groq")
    assert "gsk-from" not in f"{listing!r}{listing.transport()!r}"
    assert compatible("llama", preset="ollama").provider.name == "ollama/llama"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"preset": "grok", "api_key": "k"}, ValueError, "there is no preset 'grok'; the presets are anthropic, azure"),
        ({"preset": "azure", "api_key": "k"}, ValueError, "needs its base_url"),
        ({}, ValueError, "needs its base_url"),
        ({"preset": "groq", "api_key": "k", "max_concurency": 3}, TypeError, "max_concurency"),
        ({"base_url": "ftp://host/v1"}, ValueError, "url must begin with http"),
        ({"base_url": "localhost:80/v1"}, ValueError, 'name a host, got "localhost:80/v1"'),
        ({"preset": "groq", "api_key": "gsk-1\n"}, ValueError, "the key of 'groq/m' must be printable ASCII, without"),
    ],
)
def test_a_mistake_is_told_when_it_is_made(options, error, said):
    with pytest.raises(error, match=said):
        compatible("m", **options)


def test_a_preset_of_ones_own_says_how_its_provider_is_reached():
    own = Preset(base_url="http://127.0.0.1:9/v1", auth="x-api-key", on_cut="stops", paid=False)
    listing = compatible("m", preset=own)
    assert (listing.provider.name, listing.transport().paid) == ("m", False)


def test_a_model_that_is_said_to_honour_keys_is_warned_of():
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    try:
        compatible("m", base_url="http://127.0.0.1:9/v1", idempotent="key")
    finally:
        logger.remove(sink)
    assert len(said) == 1
    assert "may be paid twice" in said[0]
