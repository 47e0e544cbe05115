"""Models in market files: what a `kind` makes of a table, where the key comes from, and what is told at load."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.market import MarketError, load_market, parse_market
from actors.market.model_entry import ModelEntry
from actors.market.model_listing import MODEL_TIMEOUT
from actors.tariffs import Tariff

EXAMPLE = Path(__file__).parents[3] / "examples" / "models.toml"
GROQ = """\
[[providers]]
kind = "openai"
preset = "groq"
model = "llama-3.3-70b-versatile"
api_key = "gsk-of-ours"
"""


def with_line(line: str, text: str = GROQ) -> str:
    """Return the file with a line more, in the place of one with the same key."""
    key = line.partition("=")[0]
    return "\n".join([*(one for one in text.splitlines() if not one.startswith(key)), line])


def test_a_model_is_listed_by_its_kind_and_preset():
    (groq,) = parse_market(GROQ).providers
    assert groq.provider.name == "groq/llama-3.3-70b-versatile"
    assert groq.provider.services == {"chat", "llama-3.3-70b-versatile"}
    assert (groq.tariff, groq.timeout) == (Tariff(input="0.59", output="0.79"), MODEL_TIMEOUT)
    transport = groq.transport()
    assert (transport.preset.variable, transport.model, transport.paid) == (
        "GROQ_API_KEY",
        "llama-3.3-70b-versatile",
        True,
    )


@pytest.mark.parametrize(
    ("text", "name", "forms", "url"),
    [
        ('kind = "openai"\nmodel = "gpt-5-mini"', "openai/gpt-5-mini", "responses", "https://api.openai.com/v1"),
        ('kind = "anthropic"\nmodel = "m"', "anthropic/m", "messages", "https://api.anthropic.com/v1"),
        ('kind = "compatible"\npreset = "mistral"\nmodel = "m"', "mistral/m", "chat", "https://api.mistral.ai/v1"),
        ('kind = "compatible"\nmodel = "m"\nbase_url = "http://h/v1"', "m", "embeddings", "http://h/v1"),
    ],
)
def test_each_kind_speaks_its_protocol(text, name, forms, url):
    (listing,) = parse_market(f'[[providers]]\n{text}\napi_key = "k"').providers
    transport = listing.transport()
    assert listing.provider.name == name
    assert forms in transport.preset.forms
    assert url in repr(transport)


def test_what_else_is_listed_is_that_of_every_provider():
    (model,) = parse_market(
        with_line(
            'name = "alder"\nservices = ["draft"]\nprice = "0.01"\nbudget = "3"\nreputation = 80\nmax_concurrency = 3\n'
            'max_output = 50\nlimits = [{ dimension = "tokens", rate = 9.0 }]'
        )
    ).providers
    assert (model.provider.name, model.provider.services) == ("alder", {"draft", "llama-3.3-70b-versatile"})
    assert (str(model.provider.price), str(model.budget), model.tariff) == ("$0.01", "$3.00", None)
    assert (model.provider.reputation, model.max_concurrency, model.max_output) == (80, 3, 50)
    assert model.limits[0].dimension == "tokens"


def test_its_prices_are_those_of_the_file_or_of_the_price_list():
    own = Tariff(input="1", output="2")
    assert parse_market(with_line('tariff = { input = "1", output = "2" }')).providers[0].tariff == own
    assert parse_market(with_line('tariff = "listed"')).providers[0].tariff == Tariff(input="0.59", output="0.79")
    assert parse_market(with_line('model = "unlisted"')).providers[0].tariff is None
    assert parse_market(with_line('price = "0"')).providers[0].tariff is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('preset = "grok"', "m.toml: providers[0].preset (line 5): there is no preset 'grok'; did you mean 'groq'?"),
        (
            'kind = "opnai"',
            (
                "m.toml: providers[0].kind (line 5): expected 'openai', 'anthropic' or 'compatible', got 'opnai'; "
                "did you mean 'openai'?"
            ),
        ),
        ('kind = "anthropic"', "m.toml: providers[0].kind (line 5): 'groq' does not speak as 'anthropic' does; write"),
        ('url = "http://h"', "m.toml: providers[0].url (line 6): unknown key; did you mean 'base_url'?"),
        ('apikey = "k"', "m.toml: providers[0].apikey (line 6): unknown key; did you mean 'api_key'?"),
        ("address = 3", "m.toml: providers[0].address (line 6): unknown key"),
        ('tariff = "list"', 'm.toml: providers[0].tariff (line 6): expected a table of prices, or "listed"'),
        ('tariff = { input = "x" }', "m.toml: providers[0].tariff (line 6): input of a tariff must be a number"),
        ("price = 3", "m.toml: providers[0].price (line 6): expected a string"),
        ("reputation = 200", "m.toml: providers[0] (line 6): reputation must be from 0 to 100"),
        ("reputation = 'x'", "m.toml: providers[0].reputation (line 6): expected float"),
        ("timeout = 0", "m.toml: providers[0] (line 6): timeout must be > 0"),
        ("limits = [{ rat = 1 }]", "m.toml: providers[0].limits[0].rat (line 6): unknown key"),
        ('model = ""', "m.toml: providers[0].model (line 5): expected the name of a model"),
        ("model = 3", "m.toml: providers[0].model (line 5): expected string"),
        ('quota = "q"', "m.toml: providers[0].quota ('groq', line 6): there is no table [quotas.q]"),
    ],
)
def test_a_mistake_is_told_with_its_line(line, said):
    text = with_line('name = "groq"\n' + line) if "quota" in line else with_line(line)
    with pytest.raises(MarketError) as caught:
        parse_market(text, path="m.toml")
    assert str(caught.value).startswith(said.replace("line 6", "line 7") if "quota" in line else said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "openai"', "providers[0].model (line 1): this key is required"),
        ('model = "m"', "providers[0].kind (line 1): this key is required"),
        ('kind = "compatible"\nmodel = "m"', "providers[0].base_url (line 1): this key is required"),
        ('kind = "compatible"\npreset = "azure"\nmodel = "m"', "providers[0].base_url (line 1): this key is required"),
        ('kind = "openai"\nmodel = "no such"\ntariff = "listed"\napi_key = "k"', "providers[0].tariff (line 4): "),
    ],
)
def test_a_key_that_is_left_out_is_asked_for(text, said):
    with pytest.raises(MarketError) as caught:
        parse_market(f"[[providers]]\n{text}", path="m.toml")
    assert str(caught.value).startswith(f"m.toml: {said}")


def test_a_missing_key_is_told_at_load_with_its_line(tmp_path, monkeypatch):
    file = tmp_path / "m.toml"
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    for key, said in (
        ('api_key = "${GROQ_API_KEY}"', "GROQ_API_KEY in providers[0].api_key (line 5)"),
        ("", "providers[0].api_key (line 1): the key is missing: set GROQ_API_KEY, or write api_key ="),
    ):
        file.write_text(GROQ.replace('api_key = "gsk-of-ours"', key))
        with pytest.raises(MarketError) as caught:
            load_market(file)
        assert said in str(caught.value)
        monkeypatch.setenv("GROQ_API_KEY", "gsk-from-outside")
        (groq,) = load_market(file).providers
        assert groq.transport()._client.secrets.mask("gsk-from-outside") == "***"
        assert "gsk-from-outside" not in f"{groq!r}{groq.transport()!r}"
        # The text may come from elsewhere: the environment is not its business.
        if not key:
            with pytest.raises(MarketError, match="the key is missing"):
                parse_market(file.read_text())
        monkeypatch.delenv("GROQ_API_KEY")


def test_an_error_shows_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "ftp-secret")
    file = tmp_path / "m.toml"
    file.write_text(with_line('base_url = "${SECRET}"'))
    with pytest.raises(MarketError) as caught:
        load_market(file)
    assert "ftp-secret" not in str(caught.value)
    entry = ModelEntry(
        kind="openai", model="m", api_key="sk-secret", base_url="http://u:p@h", headers={"A": "b-secret"}
    )
    assert "secret" not in repr(entry)
    assert ":p@" not in repr(entry)


def test_the_example_shows_every_kind(monkeypatch):
    for name in ("GROQ_API_KEY", "TOGETHER_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "key-of-ours")
    market = load_market(EXAMPLE)
    assert [one.provider.name for one in market.providers] == [
        "groq/llama-3.3-70b-versatile",
        "together/meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "anthropic/claude-sonnet-4-6",
        "here",
    ]
    assert [one.tariff is not None for one in market.providers] == [True, True, True, False]
    assert "key-of-ours" not in repr(market)


def test_a_file_declares_what_a_cut_call_costs_and_how_long_that_is_held():
    (groq,) = parse_market(GROQ).providers
    assert groq.held_for == 86_400.0
    own = with_line("held_for = 60.0", with_line('on_cut_plain = "runs_on"', with_line('on_cut = "stops"')))
    (groq,) = parse_market(own).providers
    assert groq.held_for == 60.0
    assert "stops" in repr(groq.transport().cuts)
    with pytest.raises(MarketError, match="on_cut"):
        parse_market(with_line('on_cut = "halts"'))
