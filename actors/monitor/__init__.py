"""The actor Monitor: counters, quantiles, a request log and alerts, all from the event stream."""

from actors.monitor.metrics import AmplificationSeen, Figures, Metrics, Quantiles, Rates
from actors.monitor.monitor import GetMetrics, Memory, Monitor, MonitorConfig
from actors.monitor.rules import DEFAULT_RULES, BudgetRule, CircuitOpenRule, LatencyRule, LeftAloneRule, SuccessRateRule

__all__ = [
    "DEFAULT_RULES",
    "AmplificationSeen",
    "BudgetRule",
    "CircuitOpenRule",
    "Figures",
    "GetMetrics",
    "LatencyRule",
    "LeftAloneRule",
    "Memory",
    "Metrics",
    "Monitor",
    "MonitorConfig",
    "Quantiles",
    "Rates",
    "SuccessRateRule",
]
