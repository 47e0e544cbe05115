"""Metrics and alerts: a monitor listens to the event stream, and no other actor has to report to it.

One of two providers fails every call from the second minute to the fourth, the other is slow and dear. The program runs
in a simulation, so ten minutes pass in a moment, and the same happens every time.
"""

import asyncio

from actors import (
    FunctionTransport,
    Listing,
    Market,
    Provider,
    ProviderCall,
    Supervisor,
    Transient,
    smart_request,
)
from actors.events import AlertCleared, AlertRaised
from actors.monitor.monitor import GetMetrics, Monitor, MonitorConfig
from actors.monitor.rules import DEFAULT_RULES, BudgetRule, LatencyRule
from runtime import ActorSystem
from runtime.simulation import Simulation

CONFIG = MonitorConfig(
    rules=(
        *DEFAULT_RULES,  # Success below 95 %, latency above 5 s on average, a circuit open.
        LatencyRule(name="slow", threshold=1.0, clear_threshold=0.5),
        BudgetRule(cap="2.00"),  # At 80 % of it.
    )
)


async def alder(call: ProviderCall) -> str:
    await asyncio.sleep(0.1)
    if 60 <= asyncio.get_running_loop().time() < 240:
        raise Transient("alder is down", provider="alder", outcome="not_started")
    return str(call.input).upper()


async def birch(call: ProviderCall) -> str:
    await asyncio.sleep(2.0)
    return str(call.input).upper()


def show(alert: AlertRaised | AlertCleared) -> None:
    time = asyncio.get_running_loop().time()
    if isinstance(alert, AlertRaised):
        print(f"{time:4.0f} s: {alert.rule} of {alert.subject} raised, at {alert.value:.2f}")
    else:
        print(f"{time:4.0f} s: {alert.rule} of {alert.subject} cleared, after {alert.lasted:.0f} s")


async def main() -> None:
    market = Market(
        providers=[
            Listing(
                provider=Provider(name=name, services={"uppercase"}, price=price, reputation=reputation),
                transport=lambda function=function: FunctionTransport(function, paid=True, idempotent="no"),
            )
            for name, function, price, reputation in (("alder", alder, "0.002", 90), ("birch", birch, "0.007", 80))
        ]
    )
    async with ActorSystem("market", log=False) as system:
        monitor = system.spawn(lambda: Monitor(CONFIG, on_alert=show), name="monitor")
        supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")
        for number in range(600):
            await asyncio.sleep(max(0.0, number - asyncio.get_running_loop().time()))
            await smart_request(supervisor, service="uppercase", input=f"text {number}", timeout=30.0)
        metrics = await monitor.ask(GetMetrics(), timeout=1.0)
    total = metrics.total
    print(f"{total.success_count} of {total.request_count} requests answered for {total.total_cost}")
    print(f"{total.reroute_count} reroutes, {total.circuit_breaker_trips} trips, {total.amplification:.3f} calls each")
    for name, figures in metrics.providers.items():
        if figures.latency is not None:
            print(f"{name}: {figures.failure_count} of {figures.call_count} failed, p99 {figures.latency.p99:.1f} s")


Simulation(seed=1, logs=False).run(main)
