"""What a system does, for machines that collect figures: metrics for Prometheus."""

from actors.observing.prometheus import PrometheusMetrics

__all__ = ["PrometheusMetrics"]
