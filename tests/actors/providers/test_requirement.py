import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.providers.provider import Provider
from actors.providers.requirement import NO_REQUIREMENT, Requirement, fits, select_fit


def provider(name="a", **facts):
    return Provider(name=name, services={"s"}, **facts)


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        (NO_REQUIREMENT, None),
        (Requirement(input_tokens=8_000, capabilities={"de"}), None),
        (Requirement(input_tokens=8_001), "takes fewer than 8001 input tokens"),
        (Requirement(capabilities={"de", "pl", "cs"}), "without cs, pl"),
        (Requirement(input_tokens=9_000, capabilities={"pl"}), "takes fewer than 9000 input tokens"),
    ],
)
def test_an_input_fits_up_to_the_limit_and_else_the_reason_names_what_is_demanded(requirement, reason):
    assert fits(provider(max_input_tokens=8_000, capabilities={"en", "de"}), requirement) == reason


def test_a_provider_that_states_no_limit_takes_any_length():
    assert fits(provider(), Requirement(input_tokens=10**9)) is None


def test_providers_that_do_not_fit_are_counted_by_reason():
    offered = [
        provider("a", max_input_tokens=10),
        provider("b", max_input_tokens=100),
        provider("c", max_input_tokens=50, capabilities={"de"}),
        provider("d", capabilities={"de"}),
        provider("e", max_input_tokens=1),
    ]
    fit, dropped = select_fit(offered, Requirement(input_tokens=50, capabilities=["de"]))
    assert [one.name for one in fit] == ["c", "d"]
    assert dropped == {"takes fewer than 50 input tokens": 2, "without de": 1}


@given(st.lists(st.none() | st.integers(1, 20), max_size=8), st.integers(0, 20))
def test_every_provider_either_fits_or_is_counted(limits, tokens):
    offered = [provider(str(number), max_input_tokens=limit) for number, limit in enumerate(limits)]
    fit, dropped = select_fit(offered, Requirement(input_tokens=tokens))
    assert len(fit) + sum(dropped.values()) == len(offered)
    assert all(one.max_input_tokens is None or one.max_input_tokens >= tokens for one in fit)


def test_a_requirement_survives_the_way_over_the_wire():
    requirement = Requirement(input_tokens=7, capabilities={"de"})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(requirement), type=Requirement) == requirement
    assert hash(requirement) == hash(Requirement(input_tokens=7, capabilities=["de"]))


def test_an_impossible_requirement_is_refused():
    with pytest.raises(ValueError, match="input_tokens must be >= 0"):
        Requirement(input_tokens=-1)
    with pytest.raises(TypeError, match=r'write \{"de"\}'):
        Requirement(capabilities="de")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("limit", [0, -5])
def test_a_provider_that_takes_no_input_at_all_is_refused(limit):
    with pytest.raises(ValueError, match="max_input_tokens must be >= 1 token"):
        provider(max_input_tokens=limit)


def test_a_market_file_may_state_the_limit():
    text = b'name = "a"\nservices = ["s"]\nmax_input_tokens = 8000\n'
    assert msgspec.toml.decode(text, type=Provider).max_input_tokens == 8000
