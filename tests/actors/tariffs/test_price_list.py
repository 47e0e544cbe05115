"""The price list that comes with the package: whole, matched by name, and by date."""

from __future__ import annotations

from datetime import date

import pytest
from rich.console import Console

from actors.command.prices import show_prices
from actors.tariffs import Usage
from actors.tariffs.price_list import matches, price_list

DAY = date(2026, 6, 1)


def test_every_tariff_of_it_can_be_read_and_every_model_found_by_its_own_name() -> None:
    listed = price_list()
    count = 0
    for provider in listed.providers:
        for model in provider.models:
            for price in model.prices:
                assert price.decoded().digest
                count += 1
    assert count > 2_000
    assert len(listed.sha256) == 64
    assert price_list() is listed


@pytest.mark.parametrize(
    ("model", "provider", "cost"),
    [
        ("gpt-5-mini", None, 1_000 * 0.25 + 1_000 * 2),
        ("gpt-5-mini-2025-08-07", "openai", 1_000 * 0.25 + 1_000 * 2),
        ("claude-sonnet-4-6", None, 1_000 * 3 + 1_000 * 15),
        ("llama-3.3-70b-versatile", "groq", 1_000 * 0.59 + 1_000 * 0.79),
        ("gpt-4o", "azure", 1_000 * 2.5 + 1_000 * 10),
    ],
)
def test_what_well_known_models_cost(model: str, provider: str | None, cost: float) -> None:
    found = price_list().find(model, provider, on=DAY)
    assert found.tariff.cost(Usage(input=1_000, output=1_000)) == cost


def test_a_price_counts_from_its_date_on_and_the_dearest_of_a_day() -> None:
    for provider in price_list().providers:
        for model in provider.models:
            dated = [one for one in model.prices if one.since is not None]
            if len(dated) > 1 and not any(one.at_times for one in model.prices):
                last = dated[-1]
                assert last.since is not None
                assert model.price(date.fromisoformat(last.since)) == last
                assert model.price(date.fromisoformat(last.since).replace(year=2000)) != last
    deepseek = price_list().find("deepseek-chat", "deepseek", on=date(2025, 3, 1)).tariff
    assert (deepseek.input, deepseek.output) == ("0.27", "1.1")  # And half of it at night.


def test_what_is_not_listed_is_said_to_be_so() -> None:
    with pytest.raises(LookupError, match="give its listing a tariff"):
        price_list().find("a model of my own")
    with pytest.raises(LookupError, match="no price of model 'x' at openai"):
        price_list().find("x", "openai")
    with pytest.raises(LookupError, match="provider 'nobody'"):
        price_list().find("gpt-4o", "nobody")


def test_clauses() -> None:
    assert matches(("and", [("starts_with", "GPT"), ("ends_with", "mini")]), "gpt-5-mini")
    assert matches(("regex", "^a.c$"), "abc")
    assert not matches(("regex", "^a.c$"), "ABC")
    assert not matches(("equals", "a"), "b")
    assert not matches(None, "a")


def test_the_command_shows_price_and_source() -> None:
    console = Console(record=True, width=160)
    assert show_prices(console, "gemini-2.5-pro", None) == 0
    assert show_prices(console, "a model of my own", None) == 1
    assert show_prices(console, None, None) == 0
    text = console.export_text()
    assert "input          1.25" in text
    assert "above 200,000 tokens of input: input 2.5" in text
    assert text.count("SHA-256 5f4d8e175a91cf23") == 3
