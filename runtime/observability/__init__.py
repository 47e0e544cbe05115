"""What watches a running system from beside it: stalls of the loop, mailboxes that grow, clocks that jump."""

from runtime.observability.events import ClockJumped, LoopStalled, MailboxGrows, Suspended
from runtime.observability.watchdog import Watchdog, WatchdogConfig

__all__ = ["ClockJumped", "LoopStalled", "MailboxGrows", "Suspended", "Watchdog", "WatchdogConfig"]
