"""`understudy serve`: answer the clients of model APIs through a market, until the command is interrupted."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import msgspec

from actors.command.bad_input import BadInput, check_positive, one_line
from actors.command.interrupts import Interrupts
from actors.command.live_page import NO_PAGE, MountedPage, PageOptions, local_socket
from actors.command.market_text import MarketText
from actors.command.plan import tracing_of
from actors.command.progress import write_error
from actors.command.reloading import TenantCaps, caps_of, check_keys, check_kind
from actors.command.watching import until_changed
from actors.errors.families import CallFailed
from actors.ledger import Ledger, LedgerConfig
from actors.ledger.messages import GetHeld
from actors.limits.class_queue import priority_named
from actors.monitor import Monitor
from actors.observing import PrometheusMetrics
from actors.serve import KeyRing, new_key
from actors.serve.app import DoorApp, make_door
from actors.serve.key_file import add_key, read_keys
from actors.serve.retry_log import RetryLog
from actors.serve.server import DoorServer, loop_factory
from actors.serve.switching import NOT_SWITCHED, switch
from actors.serve.token_log import TokenLog
from actors.supervisor.supervisor import Supervisor
from actors.webhooks.senders import ReplaceWebhooks, spawn_senders
from runtime import ActorSystem, RuntimeFault
from runtime.observability import Watchdog
from runtime.persistence import Safety

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.market import Webhook
    from actors.market.market import Market
    from actors.serve.config import DoorConfig
    from actors.serve.door import Door
    from runtime import ActorRef

OPENING_TIMEOUT = 60.0
"""Seconds that the ledger has to read its journal."""
DAY = 86_400.0
MAX_PAID_KEYS = 10_000
"""The keys that are remembered as paid; the journal knows the others, and the memory of a door stays as it is."""
OBJECTS_TO_COLLECT = 10_000
"""New objects after which garbage is looked for."""
LOGS: dict[str | None, bool | Literal["json"]] = {None: False, "json": "json", "text": True}
"""What each value of `--log` is to a system."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `understudy serve`; `drain` is in seconds. Raises `BadInput` for bad values."""

    market: str
    host: str = "127.0.0.1"
    port: int = 8080
    keys: str | None = None
    journal: str
    safety: str = "power"
    drain: float = 30.0
    watch: bool = False
    """Whether the files are read again when they change, and not only at a SIGHUP."""
    log: str | None = None
    """"json" or "text"; None writes no lines."""
    metrics: bool = False
    """Whether a scraper on this machine is told metrics."""
    traces: float | None = None
    """The share of the requests that are recorded as traces, and those within a client's trace; None for no traces."""
    page: PageOptions = NO_PAGE

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65_536:
            raise BadInput(f"--port: expected a number from 0 to 65535, got {self.port}")
        check_positive("--drain", self.drain, "seconds")
        if self.safety not in get_args(Safety):
            raise BadInput(f"--safety: expected {' or '.join(get_args(Safety))}, got {self.safety!r}")
        if self.log not in LOGS:
            raise BadInput(f"--log: expected json or text, got {self.log!r}")


def serve(options: ServeOptions) -> int:
    """Serve until the first SIGINT or SIGTERM, finish what is under way, and return the exit code of that signal.

    Raises `BadInput` for what cannot be served, and without the extra `serve`.
    """
    text, keys = MarketText(options.market), read_ring(options.keys)
    market, config = text.market(), text.door()
    text.names(market, config)
    check_keys(keys, config, path=options.keys, market=options.market)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(options, market, config, keys))


def _collect_rarely() -> None:
    """Look for garbage that only a collector finds more rarely, and never among what was there at the start.

    By default it is looked for after 700 new objects (docs.python.org/3/library/gc.html#gc.set_threshold), which took
    a twentieth of the CPU of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_TO_COLLECT, *gc.get_threshold()[1:])


def read_ring(path: str | None) -> KeyRing:
    """Return the keys of a file; none for None. Raises `BadInput` for a file that cannot be read, or has none."""
    if path is None:
        return KeyRing()
    try:
        keys = read_keys(path)
    except (OSError, ValueError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise BadInput(f"--keys: {path}: {one_line(reason)}") from error
    if not keys:
        raise BadInput(f"--keys: {path} has no key; make one with `understudy key new TENANT --keys {path}`")
    return KeyRing(keys)


async def _serve(options: ServeOptions, market: Market, config: DoorConfig, keys: KeyRing) -> int:
    interrupts = Interrupts()
    stopped = asyncio.Event()
    async with (
        ActorSystem("door", log=LOGS[options.log]) as system,
        Watchdog(system) if options.log is not None else nullcontext(),
    ):
        alerts = DoorAlerts(system, market.alerts, options)
        caps = caps_of(config)
        ledger_config = LedgerConfig(safety=cast("Safety", options.safety), max_paid_keys=MAX_PAID_KEYS)
        ledger = system.spawn(lambda: Ledger(ledger_config, accounts=caps, journal=options.journal), name="ledger")
        await _check_ledger(ledger, options)
        tracing = tracing_of(options.traces)
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger, tracing=tracing))
        try:
            door = make_door(supervisor, market, config, keys)
            log = RetryLog(f"{options.journal}.tries")
            door.remember_tries(log)
            tokens = TokenLog(f"{options.journal}.tokens")
            door.remember_tokens(tokens)
            page = MountedPage(system, options.page)
            metrics = metrics_of(door, alerts.monitor) if options.metrics and alerts.monitor is not None else None
            server = DoorServer(door, page.beside(DoorApp(door, metrics)), host=options.host, port=options.port)
        except ValueError as error:
            raise BadInput(str(error)) from error
        reloader = Reloader(options, door, ledger, alerts)
        with interrupts.listening(first=stopped.set, at_once=door.end_all, on_hangup=reloader.begin):
            try:
                await server.__aenter__()
            except OSError as error:
                raise BadInput(f"--port: {server.url} cannot be served: {error.strerror}; name another port") from error
            _collect_rarely()
            try:
                _say_what_is_served(server, door)
                page.begin(server.url, host=options.host, port=server.port)
                if options.watch:
                    reloader.watch()
                async with local_socket(system, options.page, watcher=page.watcher):
                    await stopped.wait()
                await reloader.aclose()
                page.end()
                await server.drain(options.drain)
            finally:
                await reloader.aclose()
                await server.__aexit__()
                log.close()
                tokens.close()
    return interrupts.exit_code or 0


def _say_what_is_served(server: DoorServer, door: Door) -> None:
    sys.stdout.write(msgspec.json.encode({"url": f"{server.url}/v1"}).decode() + "\n")
    sys.stdout.flush()
    write_error(f"serving {', '.join(door.names.listed())}; Ctrl-C ends it\n")


def metrics_of(door: Door, monitor: ActorRef[Any]) -> PrometheusMetrics:
    """Return the metrics of a door, with the accounts that its tenants have by then. Raises `BadInput`."""
    try:
        return PrometheusMetrics(monitor, door.supervisor, accounts=lambda: tuple(door.config.tenants))
    except ImportError as error:
        raise BadInput(f"--metrics: {error}") from error


class DoorAlerts:
    """Who is told of the alerts of a door, and the monitor that raises them, from when there is a need of it."""

    def __init__(self, system: ActorSystem, webhooks: Sequence[Webhook], options: ServeOptions) -> None:
        self._system = system
        self._logs_requests = options.log is not None
        self._senders = spawn_senders(system, tuple(webhooks))
        self.monitor: ActorRef[Any] | None = None
        if webhooks or options.metrics or self._logs_requests:
            self._start()

    def go_by(self, webhooks: Sequence[Webhook]) -> None:
        """Have these webhooks told from now on, and no others."""
        if webhooks and self.monitor is None:
            self._start()
        self._senders.tell(ReplaceWebhooks(tuple(webhooks)))

    def _start(self) -> None:
        self.monitor = self._system.spawn(lambda: Monitor(log_requests=self._logs_requests), name="monitor")


class Reloader:
    """Reads the files of a door again at each SIGHUP; what cannot be used changes nothing, and is told."""

    def __init__(self, options: ServeOptions, door: Door, ledger: ActorRef[Any], alerts: DoorAlerts) -> None:
        self._options, self._door, self._alerts = options, door, alerts
        self._caps = TenantCaps(ledger, caps_of(door.config))
        self._reloading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False

    def watch(self) -> None:
        """Read them from now on whenever one has changed."""
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        paths = [self._options.market, *([] if self._options.keys is None else [self._options.keys])]
        async for _ in until_changed(paths):
            self.begin()

    def begin(self) -> None:
        """Read them once what is being read is done."""
        if self._is_closed:
            return
        self._reloading = asyncio.create_task(self._reload(after=self._reloading))

    async def _reload(self, *, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        try:
            await self._switch()
        except BadInput as error:
            write_error(f"error: {error}; the door goes on as before\n")
        else:
            write_error(f"serving {', '.join(self._door.names.listed())}\n")

    async def _switch(self) -> None:
        path, door = self._options.market, self._door
        text, keys = MarketText(path), read_ring(self._options.keys)
        market, config = text.market(), text.door()
        check_kind(door, keys)
        check_keys(keys, config, path=self._options.keys, market=path)
        names = text.names(market, config)
        before = caps_of(door.config)
        try:
            await self._caps.change(caps_of(config))
            await switch(door, market, names, config, keys)
        except (BadInput, *NOT_SWITCHED) as error:
            left = await self._caps.put_back(before)
            raise BadInput(one_line(str(error)) + left) from error
        except (CallFailed, RuntimeFault) as error:
            write_error(f"warning: the door goes by the new files; {one_line(str(error))}\n")
        self._alerts.go_by(market.alerts)

    async def aclose(self) -> None:
        """Read no more."""
        self._is_closed = True
        tasks = {task for task in (self._watching, self._reloading) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _check_ledger(ledger: ActorRef[GetHeld], options: ServeOptions) -> None:
    """Raise `BadInput` if the journal cannot be used."""
    try:
        await ledger.ask(GetHeld(), timeout=OPENING_TIMEOUT)
    except (CallFailed, RuntimeFault) as error:
        raise BadInput(f"--journal: {options.journal}: {one_line(str(error))}") from error


def make_key(path: str, tenant: str, *, days: float | None, priority: str | None = None) -> int:
    """Make a key for a tenant, add it to a file, and show it this once.

    Raises `BadInput` if that cannot be written, or for a class that there is not.
    """
    expires = None if days is None else time.time() + days * DAY
    known = None if priority is None else priority_named(priority)
    if priority is not None and known is None:
        raise BadInput(f"--priority: must be high, normal or low, got {priority!r:.100}")
    shown, kept = new_key(tenant, expires=expires, priority=known)
    try:
        add_key(Path(path), kept)
    except OSError as error:
        raise BadInput(f"--keys: {path}: {error.strerror}") from error
    write_error(f"a key of {tenant}, shown this once; its id is {kept.id}\n")
    sys.stdout.write(shown + "\n")
    return 0


def revoke_key(path: str, identity: str, *, now: bool = False) -> int:
    """Revoke a key; with `now`, end what is under way for it. Raises `BadInput` if there is none of this id."""
    found = next((key for key in read_ring(path).all() if key.id == identity), None)
    if found is None:
        raise BadInput(f"{path} has no key {identity!r}")
    add_key(path, msgspec.structs.replace(found, revoked=time.time(), cuts=now))
    write_error(f"the key {identity} of {found.tenant} is revoked; a door refuses it once it has read the file again\n")
    return 0
