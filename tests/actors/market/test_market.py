"""A market from Python and from TOML; one test per kind of bad input."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from actors.market.file import load_market, parse_market
from actors.market.listing import Listing
from actors.market.market import DiscoveryConfig, HealthConfig, Market, MarketError
from actors.money import Micros
from actors.policies.breaker.config import BreakerConfig
from actors.policies.retry import Retry
from actors.providers.provider import Provider
from actors.supervisor.supervisor import Supervisor
from actors.transports.function import FunctionTransport
from actors.transports.http import HttpTransport
from actors.transports.transport import ProviderCall

FULL = """
[[providers]]
name = "alder"
services = ["uppercase", "word-count"]
price = "0.002"
reputation = 95
response_time = 0.03
capabilities = ["en", "de"]
url = "http://127.0.0.1:8001/"
health_path = "/up"
idempotent = "key"
timeout = 2
max_concurrency = 20
rate_limit = 40
burst = 5
headers = { Authorization = "Bearer t" }

[[providers]]
name = "birch"
services = ["uppercase"]
url = "https://birch.example/v1"

[retry]
max_retries = 5
base = 0.1

[breaker]
failure_threshold = 3

[discovery]
ttl = 300

[health]
timeout = 0.5
"""

ALDER = """
[[providers]]
name = "alder"
services = ["uppercase"]
url = "http://127.0.0.1:8001/"
"""


def problem_of(text: str) -> str:
    with pytest.raises(MarketError) as caught:
        parse_market(text, path="market.toml")
    # Lines and names are tests of their own.
    shown = re.sub(r" \(('[^']*', )?line \d+\)", "", str(caught.value))
    problem = re.sub(r" \(('[^']*', )?line \d+\)", "", caught.value.problem)
    assert shown == ": ".join(part for part in ("market.toml", caught.value.key, problem) if part)
    return shown.removeprefix("market.toml: ")


def test_a_full_file_gives_every_value_its_place(tmp_path):
    file = tmp_path / "market.toml"
    file.write_text(FULL, encoding="utf-8")
    market = load_market(file)
    alder, birch = market.providers
    assert alder.provider == Provider(
        name="alder",
        services={"uppercase", "word-count"},
        price="0.002",
        reputation=95.0,
        response_time=0.03,
        capabilities={"en", "de"},
        address="http://127.0.0.1:8001/",
    )
    assert (alder.timeout, alder.max_concurrency, alder.rate_limit, alder.burst) == (2.0, 20, 40.0, 5)
    assert (birch.timeout, birch.max_concurrency, birch.rate_limit, birch.burst) == (10.0, 10, None, 1)
    assert birch.provider.price == 0
    assert market.retry == Retry(max_retries=5, base=0.1)
    assert market.breaker == BreakerConfig(failure_threshold=3)
    assert market.discovery == DiscoveryConfig(ttl=300.0)
    assert market.health == HealthConfig(timeout=0.5)


def test_a_file_without_sections_has_the_default_policies():
    market = parse_market(ALDER)
    assert market == Market(providers=market.providers)
    assert market.discovery.ttl == 600.0


def test_a_tolerance_of_prices_is_of_the_market_and_of_each_provider():
    market = parse_market("price_tolerance = 3\n" + ALDER + "\nprice_tolerance = 1.5\n")
    assert (market.price_tolerance, market.providers[0].price_tolerance) == (3.0, 1.5)
    assert parse_market(ALDER).providers[0].price_tolerance is None
    assert problem_of("price_tolerance = 0.5\n" + ALDER).startswith("price_tolerance: price_tolerance must be at least")
    assert problem_of("price_tolerance = '2'\n" + ALDER).startswith("price_tolerance: expected float, got string")


def test_the_number_of_those_that_wait_is_of_the_market():
    assert parse_market("max_waiting = 50\n" + ALDER).max_waiting == Market(max_waiting=50).max_waiting == 50
    assert parse_market(ALDER).max_waiting == 100_000
    assert problem_of("max_waiting = -1\n" + ALDER).startswith("max_waiting: max_waiting must be >= 0 requests, got -1")
    assert problem_of("max_waiting = 2.5\n" + ALDER).startswith("max_waiting: expected integer, got float")
    with pytest.raises(TypeError, match="max_waiting must be a whole number"):
        Market(max_waiting=True)


def test_each_transport_is_new_and_declares_what_the_file_says():
    alder, birch = parse_market(FULL).providers
    first, second = alder.transport(), alder.transport()
    assert isinstance(first, HttpTransport)
    assert first is not second
    assert (first.provider, first.paid, first.idempotent) == ("alder", True, "key")
    assert first._client.max_reply_bytes == 4 * 1024 * 1024
    (bounded,) = parse_market(ALDER + "\nmax_reply_bytes = 1000\n").providers
    assert bounded.transport()._client.max_reply_bytes == 1000
    free = birch.transport()
    assert (free.paid, free.idempotent) == (False, "no")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("price = 0.002", 'price: expected a string such as "0.002", got float (a float cannot hold most cents'),
        ("price = 1", 'price: expected a string such as "0.002", got integer'),
        ('price = "cheap"', "price: amount 'cheap' is not a decimal number"),
        ('price = "-1"', "price: amount '-1' is negative"),
        ('price = "0.0000001"', "price: amount '0.0000001' has more than 6 decimals"),
        ('timeout = "10"', "timeout: expected float, got string"),
        ("timeout = true", "timeout: expected float, got boolean"),
        ("rate_limit = '5'", "rate_limit: expected float, got string"),
        ("max_reply_bytes = '4 MB'", "max_reply_bytes: expected integer, got string"),
        ("price_tolerance = true", "price_tolerance: expected float, got boolean"),
        ("max_concurrency = 2.5", "max_concurrency: expected integer, got float"),
        ("idempotent = 'maybe'", "idempotent: expected 'key', 'repeatable' or 'no', got 'maybe'"),
        ("capabilities = 'en'", "capabilities: expected list, got string"),
        ("capabilities = ['en', 1]", "capabilities[1]: expected string, got integer"),
        ("headers = ['x']", "headers: expected table, got list"),
        ("available = 1", "available: expected boolean, got integer"),
        ("available = 2030-01-01", "available: expected boolean, got date"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_its_path(line, message):
    text = ALDER + ALDER.replace("alder", "birch") + line
    assert problem_of(text).startswith(f"providers[1].{message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("timeout = 0", "timeout must be > 0 seconds and finite, got 0"),
        ("timeout = nan", "timeout must be > 0 seconds and finite, got nan"),
        ("timeout = inf", "timeout must be > 0 seconds and finite, got inf"),
        ("rate_limit = -1", "rate_limit must be > 0 requests a second and finite, got -1"),
        ("burst = 0", "burst must be >= 1 request, got 0"),
        ("max_concurrency = 0", "max_concurrency must be >= 1 call, got 0"),
        ("reputation = 101", "reputation must be from 0 to 100, got 101"),
        ("price_tolerance = 0.9", "price_tolerance must be at least 1 times the price, got 0.9"),
        ("price_tolerance = nan", "price_tolerance must be > 0 times the price and finite, got nan"),
        ("max_reply_bytes = 0", "max_reply_bytes must be >= 1 byte, got 0"),
        ("headers = { Key = 'ä' }", "the value of header 'Key' must be printable ASCII without spaces around it"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_provider(line, message):
    assert problem_of(ALDER + line).startswith(f"providers[0]: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "limits = [{ dimension = 'tokens', rate = 5.0, bogus = 2 }]",
            "providers[0].limits[0].bogus: unknown key; known are burst, dimension, rate",
        ),
        ("burst = 1" + "0" * 400, "providers[0]: burst must be at most 2^53"),
        ("health_path = '/\x7f'", "not valid TOML"),
        ('health_path = "/\\u0000"', "providers[0]: health_path"),
        ("timeout = " + "9" * 5000, "cannot be read: ValueError"),
        ("tags = " + "[" * 3000 + "]" * 3000, "cannot be read: RecursionError"),
    ],
    ids=["unknown", "huge", "unprintable", "no path", "endless", "deep"],
)
def test_what_is_absurd_is_named_too(line, message):
    assert message in problem_of(ALDER + line)


@pytest.mark.parametrize("key", ["name", "services", "url"])
def test_a_missing_key_is_named(key):
    text = "\n".join(line for line in ALDER.splitlines() if not line.startswith(key))
    assert problem_of(text) == f"providers[0].{key}: this key is required"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"alder"', '""', "providers[0]: name of a provider must not be empty"),
        ('["uppercase"]', "[]", "providers[0].services: expected at least one service"),
        ("http:", "ftp:", "providers[0]: url must begin with http:// or https://"),
    ],
)
def test_an_empty_or_unusable_value_is_named(old, new, message):
    assert problem_of(ALDER.replace(old, new)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "retries = 3\n" + ALDER,
            "retries: unknown key; did you mean 'max_retries' under [retry]? known are alerts, aliases, breaker, ",
        ),
        (
            ALDER + "prize = '1'",
            "providers[0].prize: unknown key; did you mean 'price'? known are available, budget, burst, ",
        ),
        (
            ALDER + "address = 'x'",
            "providers[0].address: unknown key; did you mean 'url'? known are available, budget, ",
        ),
        (
            ALDER + "[retry]\nretries = 3",
            "retry.retries: unknown key; did you mean 'max_retries'? known are base, cap, jitter, ",
        ),
        (ALDER + "[health]\nttl = 3", "health.ttl: unknown key; did you mean 'max_age'? known are max_age, timeout"),
    ],
)
def test_an_unknown_key_is_named_with_the_known_ones(text, message):
    assert problem_of(text).startswith(message)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[retry]\nbase = 'x'", "retry.base: expected float, got string"),
        (
            "[retry]\njitter = 'some'",
            "retry.jitter: expected 'full', 'equal', 'proportional', 'decorrelated' or 'none', got 'some'",
        ),
        ("[retry]\nmax_retries = -1", "retry: max_retries must be >= 0"),
        ("[breaker]\nfailure_rate = 2.0", "breaker: failure_rate must be above 0 and at most 1, got 2.0"),
        ("[discovery]\nttl = 60", "discovery: ttl must be from 300 to 900 seconds, got 60"),
        ("[health]\ntimeout = 0", "health: timeout must be > 0 seconds and finite, got 0"),
        ("[health]\nmax_age = -1", "health: max_age must be >= 0 seconds and finite, got -1"),
        ("[[retry]]\nbase = 1", "retry: expected a table under [retry], got list"),
    ],
)
def test_a_bad_policy_is_named_with_its_section(section, message):
    assert problem_of(ALDER + section).startswith(message)


def test_two_providers_of_one_name_are_refused():
    expected = "providers[1].name: 'alder' is already the name of providers[0]; give each provider its own name"
    assert problem_of(ALDER + ALDER) == expected


@pytest.mark.parametrize("text", ["", "providers = []", "[retry]\nbase = 1"])
def test_an_empty_market_is_refused(text):
    assert problem_of(text) == "providers: expected at least one [[providers]] table"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALDER.replace("[[", "[").replace("]]", "]"), "providers: expected a list of tables, each under [[providers]]"),
        ("providers = ['alder']", "providers[0]: expected a table under [[providers]], got string"),
        ("providers = 3", "providers: expected a list of tables, each under [[providers]]"),
    ],
)
def test_providers_that_are_no_tables_are_refused(text, message):
    assert problem_of(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALDER + "timeout = \n[retry]\n", "line 6, column 11: not valid TOML: Invalid value"),
        (ALDER + "timeout =", "line 6: not valid TOML: Invalid value"),
        (ALDER + "name = 'x'", "line 6: not valid TOML: Cannot overwrite a value"),
        ("[[providers]\n", "line 1, column "),
    ],
)
def test_a_syntax_error_is_named_with_its_line(text, message):
    assert problem_of(text).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    missing = tmp_path / "none.toml"
    with pytest.raises(MarketError, match="cannot be read: No such file or directory") as caught:
        load_market(missing)
    assert caught.value.path == str(missing)
    with pytest.raises(MarketError, match="cannot be read: Is a directory"):
        load_market(tmp_path)


def test_a_file_that_is_no_text_is_named_with_its_line(tmp_path):
    file = tmp_path / "market.toml"
    file.write_bytes(b"[retry]\n# caf\xe9\n")
    with pytest.raises(MarketError) as caught:
        load_market(str(file))
    assert (caught.value.key, caught.value.problem) == ("line 2", "not valid TOML: the text is not UTF-8")


def test_a_file_needs_aiohttp_and_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "actors.transports.http")
    monkeypatch.delitem(sys.modules, "actors.transports.http_client")
    monkeypatch.delitem(sys.modules, "actors.transports.aiohttp_wire")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ImportError, match=r'pip install "understudy\[http\]"'):
        parse_market(ALDER)


async def shout(call: ProviderCall) -> str:
    return call.input.upper()


def listing(name: str = "alder", **changes: object) -> Listing:
    return Listing(
        provider=Provider(name=name, services={"uppercase"}),
        transport=lambda: FunctionTransport(shout, paid=False, idempotent="repeatable"),
        **changes,
    )


async def test_a_market_made_in_python_carries_ready_transports():
    market = Market(providers=[listing(), listing("birch", rate_limit=5.0)])
    assert isinstance(market.providers, tuple)
    transport = market.providers[0].transport()
    call = ProviderCall(service="uppercase", input="hi", request_id="r", idempotency_key="k", max_cost=0, timeout=1.0)
    assert (await transport.call(call)).output == "HI"


def test_a_market_made_in_python_is_checked_too():
    provider = Provider(name="alder", services={"s"})
    for wrong, message in (
        ({"provider": "alder"}, "provider must be a Provider"),
        ({"transport": "http://127.0.0.1/"}, "transport must be a function that makes a transport"),
        ({"timeout": "1"}, "timeout must be a number of seconds"),
    ):
        with pytest.raises(TypeError, match=message):
            Listing(**{"provider": provider, "transport": list} | wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="providers must be Listings, got Provider"):
        Market(providers=[provider])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    for policy in ("retry", "breaker", "discovery", "health", "hedge", "retry_budget", "watch"):
        with pytest.raises(TypeError, match=f"{policy} must be a "):
            Market(providers=[listing()], **{policy: 3})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="a Supervisor needs a Market, got \\[\\]"):
        Supervisor([])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="two providers are named 'alder'"):
        Market(providers=[listing(), listing()])
    with pytest.raises(ValueError, match="max_concurrency must be >= 1"):
        listing(max_concurrency=0)


def test_the_path_may_be_a_path_or_a_string(tmp_path):
    file = Path(tmp_path, "market.toml")
    file.write_text(ALDER, encoding="utf-8")
    names = [load_market(path).providers[0].provider.name for path in (file, str(file))]
    assert names == ["alder", "alder"]


def test_a_file_may_set_caps_retry_budgets_hedging_and_what_is_made_of_observations():
    text = (
        'budget = "25"\n' + ALDER + "\nbudget = '3.5'\n[retry_budget]\nratio = 0.2\nmax_tokens = 5\n"
        "[watch]\nrenew_after = 2.0\n[watch.ejection]\nfailure_threshold = 9\n[hedge]\nratio = 0.01\n"
    )
    market = parse_market(text)
    assert (market.budget, market.providers[0].budget) == (Micros(25_000_000), Micros(3_500_000))
    assert (market.retry_budget.ratio, market.retry_budget.max_tokens, market.retry_budget.tokens) == (0.2, 5.0, 5.0)
    assert (market.watch.renew_after, market.watch.ejection.failure_threshold) == (2.0, 9)
    assert market.hedge is not None
    assert market.hedge.ratio == 0.01
    assert parse_market("hedge = false\n" + ALDER).hedge is None


def test_a_file_may_say_what_may_be_paid_twice():
    market = parse_market("risk = '0.05'\nrisk_total = '1.5'\n" + ALDER + "\non_unknown = 'hold'\n")
    assert (market.risk, market.risk_total, market.providers[0].on_unknown) == (
        Micros(50_000),
        Micros(1_500_000),
        "hold",
    )
    market = parse_market(ALDER)
    assert (market.risk, market.risk_total, market.providers[0].on_unknown) == (None, None, None)
    assert market.providers[0].held_for is None
    assert parse_market(ALDER + "\nheld_for = 3600\n").providers[0].held_for == 3600.0
    with pytest.raises(ValueError, match='on_unknown of a listing must be "hold" or None'):
        Listing(
            provider=market.providers[0].provider,
            transport=market.providers[0].transport,
            on_unknown="pay_again",  # pyright: ignore[reportArgumentType]
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("risk = 0.05\n" + ALDER, 'risk: expected a string such as "0.002", got float (a float cannot hold'),
        ("risk_total = '-1'\n" + ALDER, "risk_total: amount '-1' is negative"),
        (ALDER + "\nheld_for = 0\n", "providers[0]: held_for must be > 0 seconds"),
        (ALDER + "\non_unknown = 'pay_again'\n", "providers[0].on_unknown: expected 'hold'"),
        ("budget = 2.5\n" + ALDER, 'budget: expected a string such as "0.002", got float (a float cannot hold'),
        (ALDER + "\nbudget = 3\n", 'providers[0].budget: expected a string such as "0.002", got integer'),
        (
            ALDER + "\n[retry_budget]\ntokens = 3.0",
            "retry_budget.tokens: unknown key; did you mean 'max_tokens'? known are max_tokens, ",
        ),
        (ALDER + "\n[retry_budget]\nmax_tokens = 0.5", "retry_budget: max_tokens must be finite and >= 1"),
        (
            ALDER + "\n[watch.ejection]\nratio = 1",
            "watch.ejection.ratio: unknown key; did you mean 'ratio' under [retry_budget]? known are eject_for, ",
        ),
        (ALDER + "\n[hedge]\nratio = 2.0", "hedge: ratio must be above 0 and at most 1"),
        (ALDER + "\n[[watch]]\n", "watch: expected a table under [watch]"),
    ],
)
def test_what_is_wrong_in_these_is_named(text, message):
    assert problem_of(text).startswith(message)


def test_a_cap_written_as_a_float_is_refused_in_python_too():
    listing = parse_market(ALDER).providers[0]
    for make in (
        lambda: Market(providers=[listing], budget=2.5),  # type: ignore[arg-type]
        lambda: Listing(provider=listing.provider, transport=listing.transport, budget=2.5),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="is a float, which cannot hold most cents exactly"):
            make()
