"""Runs a batch on a real Ray, and kills a machine in the middle of it; a program of its own, in a network of its own.

`python -m tests.actors.spread.ray_batch FOLDER ITEMS` prints two lines of JSON: what came of it with a provider that
honours keys, and with one that does not.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

RATE = 120
HEALTH = {"initial_delay_ms": 0, "period_ms": 300, "timeout_ms": 600, "failure_threshold": 3}
SERVER = """
idempotency = {honours}
[[models]]
name = "parrot"
price = {{ per_call = "0.001" }}
latency = {{ kind = "lognormal", median = 0.1 }}
answers = [{{ kind = "echo" }}]
"""
MARKET = """
[[providers]]
name = "alder"
kind = "compatible"
model = "parrot"
base_url = "{url}/v1"
services = ["chat"]
price = "0.001"
max_concurrency = 60
idempotent = "{idempotent}"
quota = "shared"

[quotas.shared]
rate_limit = {rate}
burst = 10
headroom = 0.9
"""


def books(url: str) -> list[dict[str, Any]]:
    """Return the calls in the server's books."""
    with urllib.request.urlopen(f"{url}/books", timeout=10) as answer:  # noqa: S310 - of this machine.
        return json.load(answer)["calls"]


def write_files(folder: Path, url: str, idempotent: str, count: int) -> None:
    """Write the market and the requests."""
    market = MARKET.format(url=url, idempotent=idempotent, rate=RATE)
    (folder / "market.toml").write_text(market, encoding="utf-8")
    lines = [
        json.dumps({"id": number, "service": "chat", "input": {"messages": [{"role": "user", "content": f"{number}"}]}})
        for number in range(count)
    ]
    (folder / "requests.jsonl").write_text("\n".join(lines), encoding="utf-8")


def start_run(folder: Path, address: str, budget: str) -> subprocess.Popen[bytes]:
    """Start `understudy run --ray`."""
    command = [sys.executable, "-m", "actors.command", "run", "market.toml", "requests.jsonl", "--out", "results.jsonl"]
    command += ["--ray", address, "--max-concurrency", "60", "--budget", budget]
    command += ["--report", "report.json", "--overwrite"]
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stderr=log, stdout=log)


def report(folder: Path) -> dict[str, Any]:
    """Return the report of the last run."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def results(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the results so far."""
    path = folder / "results.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def wait_for(count: int, run: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until so many results are there."""
    until = time.monotonic() + 120
    while len(results(folder)) < count:
        if run.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{len(results(folder))} of {count} results; the run ended with {run.poll()}")
        time.sleep(0.05)


def most_in_a_second(times: list[float]) -> int:
    """Return the largest number of calls that began in any second."""
    times, most, first = sorted(times), 0, 0
    for last, now in enumerate(times):
        while now - times[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


class Machines:
    """Machines of Ray in this one: `a`, from which the batch is run, and others that come and go."""

    def __init__(self) -> None:
        cluster_utils: Any = importlib.import_module("ray.cluster_utils")
        self._options = {"num_cpus": 1, "object_store_memory": 80_000_000}
        self.cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={**self._options, "include_dashboard": False, "node_name": "a"}
        )
        self._others: dict[str, Any] = {}

    def add(self, name: str) -> None:
        """Let a machine join."""
        self._others[name] = self.cluster.add_node(**self._options, node_name=name)

    def kill(self, name: str) -> None:
        """Kill a machine without a word."""
        self.cluster.remove_node(self._others.pop(name), allow_graceful=False)


def run_over(machines: Machines, folder: Path, url: str, count: int, names: str) -> dict[str, Any]:
    """Run the batch, kill the first machine of the names in the middle of it, and let the second one join.

    The budget is too small by a twentieth; then it is run on with enough.
    """
    budgets = [f"{0.00095 * count:.3f}", f"{0.002 * count:.3f}"]
    run = start_run(folder, machines.cluster.address, budgets[0])
    wait_for(count // 3, run, folder)
    machines.kill(names[0])
    machines.add(names[1])
    codes = [run.wait(timeout=180)]
    at_once, charged_at_once = report(folder), sum(bool(float(one["charged_micros"])) for one in books(url))
    codes.append(start_run(folder, machines.cluster.address, budgets[1]).wait(timeout=180))
    calls = books(url)
    charged = [one for one in calls if float(one["charged_micros"])]
    keys = [one["idempotency_key"] for one in charged if one["idempotency_key"]]
    found = results(folder)
    return {
        "codes": codes,
        "spent": [at_once["spent"], report(folder)["spent"]],
        "in_doubt": [at_once["in_doubt"], report(folder)["in_doubt"]],
        "charged": [charged_at_once, len(charged)],
        "statuses": {status: sum(one["status"] == status for one in found) for status in ("done", "unknown")},
        "lines": len(found),
        "charged_twice": len(keys) - len(set(keys)),
        "repeated": sum(one["attempt"] > 0 for one in calls),  # Each item asks for something else.
        "most_in_a_second": most_in_a_second([one["began"] for one in calls]),
        "wrong": sum(one["status"] == "done" and str(one["id"]) not in json.dumps(one["output"]) for one in found),
    }


def serve_and_run(machines: Machines, folder: Path, idempotent: str, count: int, names: str) -> dict[str, Any]:
    """Start a server, and run a batch over it."""
    folder.mkdir()
    (folder / "server.toml").write_text(SERVER.format(honours=str(idempotent == "key").lower()), encoding="utf-8")
    server = subprocess.Popen(
        [sys.executable, "-m", "actors.command", "fake", "server.toml", "--until-eof"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        write_files(folder, url, idempotent, count)
        return run_over(machines, folder, url, count, names)
    finally:
        server.kill()
        server.wait()


def main(folder: Path, count: int) -> int:
    """Start the machines, and run the batch twice."""
    os.environ.update({f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()})
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    machines = Machines()
    try:
        for name in "bc":
            machines.add(name)
        for idempotent, names in (("key", "bd"), ("no", "ce")):
            found = serve_and_run(machines, folder / idempotent, idempotent, count, names)
            sys.stdout.write(json.dumps(found) + "\n")
    finally:
        machines.cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
