"""One log line for each request, and no line in masses: of many failures alike, few are warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.money import micros_of

if TYPE_CHECKING:
    from actors.supervisor.pipeline.job import Job
    from runtime import Context

ALL_BELOW = 10
"""So many failures alike are warnings each; then every one whose number is twice that of the last."""
ANSWERED = "request {request_id} for {service} answered by {provider}: {}, {latency:.3f} s, {cost}"
NOT_ANSWERED = "request {request_id} for {service} {}: {}, {latency:.3f} s, {cost}, {}{}"
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
        fields = {
            "request_id": job.request_id,
            "service": job.message.service,
            "provider": provider if error is None else job.last,
            "attempts": job.calls,
            "latency": self._now() - job.started,
            "cost": micros_of(job.cost),
            "error": error if not detail else f"{error}: {detail}",
        }
        attempts = "1 attempt" if job.calls == 1 else f"{job.calls} attempts"
        if error is None:
            self._log.debug(ANSWERED, attempts, **fields)
            return
        level, alike, how = "DEBUG", "", "was given up"
        if error != "Cancelled":
            how = "failed"
            count = self._count(job.message.service, error)
            if is_shown(count):
                level = "WARNING"
                alike = f" ({count} have failed alike; of further ones, few are warnings)" if count >= ALL_BELOW else ""
        how = f"{how} at {job.last}" if job.last else how
        why = " ".join(str(fields["error"]).split())  # The words of a provider may have line breaks.
        self._log.log(level, NOT_ANSWERED, how, attempts, why, alike, **fields)

    def _count(self, service: str, error: str) -> int:
        if len(self._failures) >= MAX_KINDS:
            self._failures.clear()
        count = self._failures[service, error] = self._failures.get((service, error), 0) + 1
        return count
