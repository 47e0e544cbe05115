import msgspec
import pytest

from actors.policies.breaker.states import BreakerState, Closed, HalfOpen, Isolated, Open


@pytest.mark.parametrize("state", [Closed(), Open(1, 2.0), HalfOpen(2, 3.0), Isolated(3)], ids=repr)
def test_a_state_survives_the_way_over_the_wire(state):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=BreakerState) == state
