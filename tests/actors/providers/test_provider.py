import math
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.money import Micros
from actors.providers.provider import Provider, ProviderFilter


def provider(**fields: object) -> Provider:
    return Provider(**{"name": "acme", "services": {"translation"}} | fields)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (ProviderFilter(), None),
        (ProviderFilter(max_price="0.05", min_reputation=80, max_response_time=2.0, min_success_rate=0.9), None),
        (ProviderFilter(required_capabilities={"en", "de"}), None),
        (ProviderFilter(max_price="0.049999"), "over max_price $0.049999"),
        (ProviderFilter(min_reputation=80.5), "below min_reputation 80.5"),
        (ProviderFilter(max_response_time=1.9), "over max_response_time 1.9"),
        (ProviderFilter(min_success_rate=0.95), "below min_success_rate 0.95"),
        (ProviderFilter(required_capabilities={"pl", "en", "cs"}), "without cs, pl"),
    ],
)
def test_a_filter_passes_at_its_limits_and_else_names_the_reason(where, reason):
    acme = provider(price="0.05", reputation=80, response_time=2.0, success_rate=0.9, capabilities={"en", "de", "fr"})
    assert where.matches(acme) == reason


def test_an_unavailable_provider_is_dropped_unless_asked_for():
    away = provider(available=False)
    assert ProviderFilter().matches(away) == "unavailable"
    assert ProviderFilter(available_only=False).matches(away) is None


def test_the_dropped_are_counted_by_reason_and_the_kept_stay_in_order():
    offered = [
        provider(name="a", price=Micros(3)),
        provider(name="b", price="0.90"),
        provider(name="c"),
        provider(name="d", price="0.80"),
        provider(name="e", available=False),
    ]
    kept, dropped = ProviderFilter(max_price="0.50").select(offered)
    assert [one.name for one in kept] == ["a", "c"]
    assert dropped == {"over max_price $0.50": 2, "unavailable": 1}


providers = st.lists(
    st.builds(
        provider,
        name=st.text(min_size=1),
        price=st.integers(0, 10).map(Micros),
        reputation=st.floats(0, 100),
        response_time=st.floats(0, 10),
        success_rate=st.floats(0, 1),
        available=st.booleans(),
        capabilities=st.sets(st.sampled_from(["en", "de", "fr"])),
    )
)
filters = st.builds(
    ProviderFilter,
    max_price=st.none() | st.integers(0, 10).map(Micros),
    min_reputation=st.floats(0, 100),
    max_response_time=st.none() | st.floats(0, 10),
    min_success_rate=st.floats(0, 1),
    required_capabilities=st.sets(st.sampled_from(["en", "de"])),
    available_only=st.booleans(),
)


@given(filters, providers)
def test_every_offer_is_either_kept_or_counted(where, offered):
    kept, dropped = where.select(offered)
    assert len(kept) + sum(dropped.values()) == len(offered)
    assert kept == [one for one in offered if where.matches(one) is None]
    assert set(dropped) == {where.matches(one) for one in offered} - {None}


@given(filters)
def test_a_filter_survives_the_way_over_the_wire_and_can_key_a_cache(where):
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(where), type=ProviderFilter)
    assert decoded == where
    assert hash(decoded) == hash(where)


def test_one_price_written_in_three_ways_is_one_filter():
    assert len({ProviderFilter(max_price=price) for price in ("0.2", "0.20", Decimal("0.200"))}) == 1
    assert ProviderFilter(max_price=2) == ProviderFilter(max_price="2")


def test_a_market_in_toml_decodes_straight_into_providers_and_filters():
    text = b'name = "acme"\nservices = ["translation"]\nprice = 50000\ncapabilities = ["en", "de"]\n'
    acme = msgspec.toml.decode(text, type=Provider)
    assert acme == provider(price="0.05", capabilities={"en", "de"})
    where = msgspec.toml.decode(b'max_price = "0.20"\nrequired_capabilities = ["en"]', type=ProviderFilter)
    assert where == ProviderFilter(max_price="0.20", required_capabilities={"en"})


def test_names_are_kept_as_frozensets_so_a_provider_is_a_value():
    assert provider(services=["translation", "translation"]) == provider()
    assert len({provider(), provider()}) == 1


@pytest.mark.parametrize("field", ["services", "capabilities"])
def test_a_string_in_place_of_a_set_of_names_is_refused(field):
    with pytest.raises(TypeError, match=f'{field} must be a set .*write {{"de"}}'):
        provider(**{field: "de"})


@pytest.mark.parametrize("price", [0.05, True, None, b"1"])
def test_a_price_that_is_no_amount_is_refused_by_name(price):
    with pytest.raises(TypeError, match=r"price: amount "):
        provider(price=price)


def test_a_filter_refuses_a_float_of_money():
    with pytest.raises(TypeError, match="float"):
        ProviderFilter(max_price=0.2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "setting",
    [
        {"name": ""},
        {"price": -1},
        {"reputation": 101},
        {"response_time": -0.1},
        {"response_time": math.inf},
        {"success_rate": 1.5},
    ],
    ids=str,
)
def test_an_impossible_provider_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        provider(**setting)


@pytest.mark.parametrize(
    "setting", [{"min_reputation": -1}, {"min_success_rate": 2}, {"max_response_time": math.nan}], ids=str
)
def test_an_impossible_filter_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        ProviderFilter(**setting)
