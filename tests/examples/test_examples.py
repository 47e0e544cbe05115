"""Every example runs, as its reader would run it, and says what it promises."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.simulation import explore, find_scenario
from tests.proofs import repeated
from tests.runtime.cluster.test_on_ray import ALONE, can_be_alone

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "chat.py": ["swift answered for $0.001"],
    "chat_stream.py": ["shaky broke off; all before is void", "steady answered; all of it cost $0.003"],
    "agirails_market.py": [
        "40 of 40 requests answered, by {'cedar': 40}",
        "all that is under way is listed as held: True",
        "balances + unreleased escrow == minted: True",
    ],
    "concurrent_requests.py": [
        "18 done, ['text 7', 'text 17'] failed, in 4 s, 5 at once",
        "one every 0.2 s",
        "250 items",
    ],
    "provider_discovery.py": ["best: alder, cheapest: cedar, fastest: birch", "by cedar, for $0.05 in 2 attempts"],
    "resume.py": [
        "killed when",
        "40 of 40 answered, 0 twice",
        "40 charged by the provider, 0 twice; the ledger has $0.40 settled",
    ],
    "retry_logic.py": [
        "Transient raised after 4 attempts",
        "5 were made, 95 failed fast",
        "1000 callers at once: 1 probe",
    ],
    "failure_drills.py": [
        "200 of 200 answered",
        "4 of them too early, 0 breakers opened",
        "500 of 500 answered",
        "1 escalated",
        "19 of 20 answered",
        "20 of 200 answered, 0 places taken, breaker of alder closed, $0.00 reserved",
    ],
    "fastapi_service.py": ["acme: 200", "initech: 402"],
    "hello.py": ["alice has 12"],
    "llm_router.py": ["300 of 300 items in", "300 done, 0 failed, 0 unknown", "so both agree: True"],
    "long_agent.py": ["14 chapters in 28 lives", "3 answers were given again", "each chapter was paid once: True"],
    "monitoring.py": ["circuit_open of alder raised", "circuit_open of alder cleared", "600 of 600 requests answered"],
    "robust_batch.py": ["200 of 200 texts answered", "rerouted: True"],
}
DRILLS = ("provider_outage", "throttle_storm", "flapping", "crash_loop", "poison_message", "cancellation_storm")


def test_every_example_is_run_by_the_test_below():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SAYS, "on_ray.py"}


@pytest.mark.slow
@pytest.mark.parametrize("drill", DRILLS)
def test_a_failure_drill_holds_whatever_the_seed(drill: str):
    explore(find_scenario(f"{EXAMPLES / 'failure_drills.py'}::{drill}"), seeds=range(repeated(30)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs_and_says_what_it_promises(name: str):
    said = said_by(name)
    for text in SAYS[name]:
        assert text in said


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")
def test_the_example_on_ray_runs_over_three_machines():
    if not can_be_alone():
        pytest.skip("a network of its own cannot be had here, and Ray would listen on others than loopback")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.examples.three_machines"],
        cwd=EXAMPLES.parent,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    for text in ("calls are made on a, b, c", "the agent wrote 30 parts for $0.03", "charged, in dollars: 0.03"):
        assert text in done.stdout, done.stdout + done.stderr[-4_000:]


@pytest.mark.nightly
def test_the_agents_of_the_example_serve_a_hundred_requests_too():
    assert "100 of 100 requests answered, by {'cedar': 100}" in said_by("agirails_market.py", "100")


def said_by(name: str, *arguments: str) -> str:
    """Run an example to its end, and return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
