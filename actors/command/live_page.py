"""The live page of a command, and its socket for `understudy top`: what operators may do there, and by which token."""

from __future__ import annotations

import os
import re
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.command.bad_input import BadInput
from actors.command.progress import write_error
from actors.dashboard.app import DashboardApp
from actors.dashboard.gate import MIN_TOKEN, Gate, new_token, with_token
from actors.dashboard.local import LocalSocket
from actors.dashboard.watcher import MAILBOX, Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from actors.dashboard.messages import Act, GetUpdate
    from runtime import ActorRef, ActorSystem

    Asgi: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
MISSING = "--dashboard needs more packages: pip install 'understudy[dashboard]'"
PATH = "/dashboard"


class PageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a command that concern its page: `token` is None for one that is made up.

    `may_act` is for `understudy top` as well, which finds the command if it `has_socket`, with a page or without.
    `hosts` are further names that the page answers under, such as "ops.example".
    """

    is_wanted: bool = False
    may_act: bool = False
    token: str | None = None
    hosts: tuple[str, ...] = ()
    has_socket: bool = False


NO_PAGE = PageOptions()


def page_options(
    *,
    is_wanted: bool,
    may_act: bool,
    token: str | None,
    hosts: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
) -> PageOptions:
    """Return the options of a page; `token` names a variable of the environment, such as "${OPERATOR}".

    Raises `BadInput` for a token as it is, which other users of the machine could read among the arguments.

    >>> page_options(is_wanted=True, may_act=False, token="${T}", environ={"T": "0123456789abcdef"}).token
    '0123456789abcdef'
    """
    if not is_wanted and (hosts or token is not None):
        raise BadInput("--dashboard-token and --dashboard-host need --dashboard beside them")
    value = None
    if token is not None:
        named = REFERENCE.fullmatch(token)
        if named is None:
            raise BadInput("--dashboard-token: name a variable, such as '${OPERATOR}'; an argument is no secret")
        value = (os.environ if environ is None else environ).get(named[1], "")
        if len(value) < MIN_TOKEN:
            raise BadInput(f"--dashboard-token: set {named[1]} to a secret of at least {MIN_TOKEN} characters")
    return PageOptions(
        is_wanted=is_wanted, may_act=may_act, token=value, hosts=hosts, has_socket=hasattr(socket, "AF_UNIX")
    )


@asynccontextmanager
async def live_page(system: ActorSystem, options: PageOptions) -> AsyncGenerator[None]:
    """Serve the page of a system at a free port if it is wanted, and say where; `understudy top` finds it anyway."""
    if not options.is_wanted:
        async with local_socket(system, options):
            yield
        return
    try:
        from actors.dashboard.server import Dashboard  # noqa: PLC0415 - of an extra, which the page alone needs.
    except ImportError as error:
        raise BadInput(MISSING) from error
    async with Dashboard(system, token=options.token, hosts=options.hosts, may_act=options.may_act) as page:
        write_error(f"the live page: {page.address if options.token else page.url}\n")
        async with local_socket(system, options, watcher=page.watcher):
            yield


@asynccontextmanager
async def local_socket(
    system: ActorSystem, options: PageOptions, *, watcher: ActorRef[GetUpdate | Act] | None = None
) -> AsyncGenerator[None]:
    """Let `understudy top` find a system; if that cannot be, say why, and go on without."""
    async with AsyncExitStack() as stack:
        if options.has_socket:
            try:
                await stack.enter_async_context(LocalSocket(system, may_act=options.may_act, watcher=watcher))
            except OSError as error:
                write_error(f"warning: `understudy top` will not find this: {error}\n")
        yield


class MountedPage:
    """The page of a system below the path of another server; nothing if it is not wanted."""

    def __init__(self, system: ActorSystem, options: PageOptions) -> None:
        self._options = options
        self._token = options.token or new_token()
        self._gate = Gate(self._token, hosts=options.hosts)
        self.app: DashboardApp | None = None
        self.watcher: ActorRef[GetUpdate | Act] | None = None
        if options.is_wanted:
            may_act = options.may_act
            self.watcher = system.spawn(lambda: Watcher(system, may_act=may_act), mailbox=MAILBOX)
            self.app = DashboardApp(self.watcher, self._gate)

    def beside(self, other: Asgi) -> Asgi:
        """Return an application that has the page below its path, and is the other everywhere else."""
        page = self.app
        if page is None:
            return other

        async def either(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"].startswith(f"{PATH}/"):
                await page({**scope, "root_path": PATH}, receive, send)
            else:
                await other(scope, receive, send)

        return either

    def begin(self, url: str, *, host: str, port: int) -> None:
        """Answer under the address of the server, and say where the page is."""
        if self.app is not None:
            self._gate.allow_local(host, port)
            address = f"{url}{PATH}/"
            write_error(f"the live page: {address if self._options.token else with_token(address, self._token)}\n")

    def end(self) -> None:
        """End the streams of those that look."""
        if self.app is not None:
            self.app.close()
