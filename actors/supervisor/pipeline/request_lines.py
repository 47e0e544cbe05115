"""One log line for each request, and no line in masses: of many failures alike, few are warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.money import micros_of

if TYPE_CHECKING:
    from actors.supervisor.pipeline.job import Job
    from runtime import Context

ALL_BELOW = 10
"""So many failures alike are warnings each; then every one whose number is twice that of the last."""
MAX_KINDS = 1_000
"""The kinds of failures that are counted; beyond them, counting begins anew."""


def is_shown(count: int) -> bool:
    """Tell whether the failure with this number among those alike is a warning.

    >>> [count for count in range(1, 100) if is_shown(count)]
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 40, 80]
    """
    if count <= ALL_BELOW:
        return True
    doublings, rest = divmod(count, ALL_BELOW)
    return not rest and doublings & (doublings - 1) == 0


class RequestLines:
    """Writes the lines of one supervisor's requests: at level DEBUG, and failures at WARNING."""

    def __init__(self, context: Context) -> None:
        self._log = context.log  # Made once, because every request has a line.
        self.are_wanted = context.logs
        self._now = context.now
        self._failures: dict[tuple[str, str], int] = {}
        """How many requests have failed alike, by service and kind of error."""

    def write(self, job: Job, *, provider: str | None, error: str | None, detail: str | None) -> None:
        """Write the line of a request that has ended; ask `are_wanted` first."""
        latency, cost, service = self._now() - job.started, micros_of(job.cost), job.message.service
        attempts = "1 attempt" if job.calls == 1 else f"{job.calls} attempts"
        if error is None:
            self._log.debug(
                "request {} for {} answered by {}: {}, {:.3f} s, {}",
                job.request_id,
                service,
                provider,
                attempts,
                latency,
                cost,
            )
            return
        level, alike, how = "DEBUG", "", "was given up"
        if error != "Cancelled":
            how = "failed"
            count = self._count(service, error)
            if is_shown(count):
                level = "WARNING"
                alike = f" ({count} have failed alike; of further ones, few are warnings)" if count >= ALL_BELOW else ""
        # A provider's text may have line breaks, with which parts of it could pass for log lines.
        why = " ".join(f"{error}: {detail}".split()) if detail else error
        self._log.log(
            level,
            "request {} for {} {}{}: {}, {:.3f} s, {}, {}{}",
            job.request_id,
            service,
            how,
            f" at {job.last}" if job.last else "",
            attempts,
            latency,
            cost,
            why,
            alike,
        )

    def _count(self, service: str, error: str) -> int:
        if len(self._failures) >= MAX_KINDS:
            self._failures.clear()
        count = self._failures[service, error] = self._failures.get((service, error), 0) + 1
        return count
