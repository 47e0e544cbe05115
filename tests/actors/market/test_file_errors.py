"""What is said of a mistake in a market file: the line, the provider, and what was probably meant."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from actors.market import MarketError, parse_market
from actors.market.file import HEADINGS, MARKET_KEYS
from actors.market.lines import key_lines, line_of
from actors.spelling import closest
from actors.tariffs import Tariff, Tier

EXAMPLE = Path(__file__).parents[3] / "examples" / "market.toml"

FILE = """\
# The market of a test; [[providers]] in a comment is none.
[[providers]]
name = "alder"
services = ["a]", "b"]
url = "http://127.0.0.1:8001/"

[[providers]]
name = "birch"
services = [
    "x",  # ]
]
url = 'http://127.0.0.1:8002/'
"""


def said(text: str) -> str:
    with pytest.raises(MarketError) as caught:
        parse_market(text, path="m.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("price = 3", "m.toml: providers[1].price ('birch', line 13): expected a string"),
        ("timeout = 0", "m.toml: providers[1] ('birch', line 13): timeout must be > 0"),
        ("timeout = 'x'", "m.toml: providers[1].timeout ('birch', line 13): expected float"),
        ("bogus_key = 1", "m.toml: providers[1].bogus_key ('birch', line 13): unknown key; known are"),
        (
            "tariff = { input = 0.25 }",
            "m.toml: providers[1].tariff.input ('birch', line 13): expected integer or string",
        ),
        (
            "tariff = { input = 'x' }",
            "m.toml: providers[1].tariff ('birch', line 13): input of a tariff must be a number",
        ),
        ("tariff = { imput = '1' }", "m.toml: providers[1].tariff ('birch', line 13): Object contains unknown field"),
        ("max_output = 0", "m.toml: providers[1] ('birch', line 13): max_output must be >= 1 token"),
        ("budget = 1", "m.toml: providers[1].budget ('birch', line 13): expected a string"),
        ("limits = [{ rate = 1 },\n{ rat = 1 }]", "m.toml: providers[1].limits[1].rat ('birch', line 13): unknown key"),
        ("[[providers.limits]]\nrate = 'x'", "m.toml: providers[1].limits[0].rate ('birch', line 14): expected float"),
        ("[providers.headers]\nA = 3", "m.toml: providers[1].headers.A ('birch', line 14): expected string"),
        ("[[providers]]\nname = 'cedar'", "m.toml: providers[2].url ('cedar', line 13): this key is required"),
        ("[[providers]]\nurl = 3", "m.toml: providers[2].url (line 14): expected string"),
        ("[retry]\nbase = 'x'", "m.toml: retry.base (line 14): expected float"),
        ("[watch.ejection]\nmargn = 1", "m.toml: watch.ejection.margn (line 14): unknown key; did you mean 'margin'?"),
        ("price = '''\n[[providers]]\n'''\ntimeout = true", "m.toml: providers[1].price ('birch', line 13): amount"),
    ],
)
def test_an_error_names_the_provider_and_the_line(line, message):
    assert said(FILE + line).startswith(message)


def test_both_of_two_providers_of_one_name_are_named_with_their_lines():
    assert said(FILE.replace("birch", "alder")) == (
        "m.toml: providers[1].name ('alder', line 8): 'alder' is already the name of providers[0] ('alder', line 2); "
        "give each provider its own name"
    )


def headings_with_keys() -> list[tuple[str, str]]:
    known = {"": MARKET_KEYS} | HEADINGS
    return [(heading, key) for heading, keys in known.items() for key in keys]


@pytest.mark.parametrize(("heading", "key"), headings_with_keys())
def test_each_key_mistyped_at_its_door_is_recognised(heading, key):
    known = HEADINGS[heading] if heading else MARKET_KEYS
    swapped = key[:-2] + key[-1] + key[-2]
    for typed in (key.upper(), key.replace("_", "-"), key + "s", swapped, key.replace("_", "").capitalize()):
        if typed not in known:
            assert closest(typed, known) == key, typed


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("rate-limit = 3", "did you mean 'rate_limit'?"),
        ("maxRetries = 3", "did you mean 'max_retries' under [retry]?"),
        ("max_retries = 3", "did you mean 'max_retries' under [retry]?"),
        ("rps = 3", "did you mean 'rate_limit'?"),
        ("endpoint = 'x'", "did you mean 'url'?"),
        ("[retry]\nmax_concurrency = 3", "did you mean 'max_concurrency' under [[providers]]?"),
        ("[retries]\nbase = 3", "did you mean"),
        ("[breakers]\nwindow = 3", "did you mean 'breaker'?"),
        ("[[provider]]\nname = 'x'", "did you mean 'providers'?"),
        ("[hedge]\nmin_dealy = 3", "did you mean 'min_delay'?"),
        ("[watch.observe]\nhalf_life = 3", "did you mean 'observed'?"),
        ("[[providers.limits]]\nrates = 3", "did you mean 'rate'?"),
        ("[quota.account]\nrate_limit = 3", "did you mean 'quotas'?"),
        ("[quotas.account]\nrps = 3", "did you mean 'rate_limit'?"),
        ("[[quotas.account.limits]]\nrates = 3", "quotas.account.limits[0].rates (line 14): unknown key; did you mean"),
        ("quota = 'my-org'\n[quotas.my_org]\nrate_limit = 3", "no table [quotas.my-org]; did you mean 'my_org'?"),
        ("quota = 'my-org'", "no table [quotas.my-org]; state its limits in one"),
        ("[quotas.my-org]\nrate_limit = 3", 'no provider draws on it; write quota = "my-org" under the [[providers]]'),
        (
            "quota = 'my-org'\n[quotas.my-org]\nrate_limit = 3\n[quotas.my_orgs]\nrate_limit = 3",
            "quotas.my_orgs (line 16): no provider draws on it; did you mean 'my-org'? Otherwise write quota = ",
        ),
    ],
)
def test_a_mistyped_key_is_answered_with_what_was_meant(line, hint):
    assert hint in said(FILE + line)


def test_lines_are_found_whatever_the_values_look_like():
    text = '"a.b" = 1\nc.d = """\n[x]\n"""\n[ t . u ]\nv = [\n 1,\n]\nw = "#["\n'
    assert key_lines(text) == {"a.b": 1, "c.d": 2, "t.u": 5, "t.u.v": 6, "t.u.w": 9}
    assert line_of("nothing[0].x", key_lines(text)) is None


def stated_defaults() -> list[tuple[str, str, object]]:
    """Return the heading, key and value of each default that the example states, those in comments too."""
    text = EXAMPLE.read_text(encoding="utf-8")
    _, _, stated = text.partition("# What follows are the defaults")
    comments, _, sections = stated.partition("[retry]")
    keys = "\n".join(re.findall(r"^# (\w+ = .*)$", comments, re.MULTILINE))
    found = [("[[providers]]", key, value) for key, value in tomllib.loads(keys).items()]
    for section, table in tomllib.loads("[retry]" + sections).items():
        found += [(f"[{section}]", key, value) for key, value in table.items()]
    return found


@pytest.mark.parametrize(("heading", "key", "value"), stated_defaults())
def test_the_example_states_the_true_defaults(heading, key, value):
    listing = parse_market(FILE).providers[0]
    market = parse_market(FILE)
    if heading == "[[providers]]":
        endpoint = listing.transport._endpoint
        holders = (listing.provider, listing, endpoint)
        assert next(getattr(one, key) for one in holders if hasattr(one, key)) == value
    else:
        assert getattr(getattr(market, heading.strip("[]")), key) == value


def test_the_example_states_defaults_of_every_section():
    stated = {heading for heading, _, _ in stated_defaults()}
    assert stated == {heading for heading in HEADINGS if "." not in heading} - {"[[alerts]]"}  # Which is not there.
    assert len(stated_defaults()) > 25
    assert msgspec.structs.asdict(parse_market(FILE).retry)["base"] == 1.0


def test_a_tariff_is_read_from_a_file():
    text = 'overdraft = "0.05"\n' + FILE + "[providers.tariff]\ninput = '0.25'\ntiers = [{ above = 9, output = '3' }]\n"
    market = parse_market(text)
    _, birch = market.providers
    assert birch.tariff == Tariff(input="0.25", tiers=(Tier(above=9, output="3"),))
    assert birch.may_cost
    assert birch.transport().paid
    assert market.overdraft == 50_000
