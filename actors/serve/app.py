"""The front door as an ASGI application: its paths, and what each of them speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from actors.serve.answering import Answers
from actors.serve.config import DoorConfig
from actors.serve.door import Door
from actors.serve.exchange import DoorExchange
from actors.serve.metrics_path import MetricsPath
from actors.serve.names import names_of
from actors.serve.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.market.market import Market
    from actors.model_calls.request import Form
    from actors.observing import PrometheusMetrics
    from actors.serve.door import Visitor
    from actors.serve.keys import KeyRing
    from runtime import ActorRef

MODEL_PATHS: dict[str, Form] = {"/chat/completions": "chat", "/responses": "responses", "/messages": "messages"}
SPOKEN = (
    "POST /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/messages, /v1/messages/count_tokens, "
    "/v1/services/NAME, and GET /v1/models"
)


SERVICES = "/v1/services/"


class PathHandler(Protocol):
    """What answers the requests of one path, as an ASGI application does."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        ...


class DoorPath:
    """One path of a door."""

    def __init__(
        self, door: Door, handle: Callable[[DoorExchange, Visitor, str], Awaitable[None]], *, form: Form | None = None
    ) -> None:
        self._door, self._handle = door, handle
        self._form: Form | None = form

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._door.serve(scope, receive, send, self._handle, form=self._form)


class ModelEndpoint:
    """A path that speaks one protocol of models."""

    def __init__(self, answers: Answers, door: Door, form: Form) -> None:
        self._answers, self._door = answers, door
        self._form: Form = form

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._door.serve(scope, receive, send, self._answer, form=self._form)

    async def _answer(self, exchange: DoorExchange, visitor: Visitor, request_id: str) -> None:
        await self._answers.model(exchange, visitor, request_id, self._form)


class ServiceEndpoint:
    """The path of any other service."""

    def __init__(self, answers: Answers, door: Door) -> None:
        self._answers, self._door = answers, door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = path_of(scope).removeprefix(SERVICES)

        async def answer(exchange: DoorExchange, visitor: Visitor, request_id: str) -> None:
            await self._answers.service(exchange, visitor, request_id, name)

        await self._door.serve(scope, receive, send, answer, form=None)


class HealthPath:
    """Tells that the process lives and, if `ready`, whether it takes requests; needs no key."""

    def __init__(self, door: Door, *, ready: bool) -> None:
        self._door, self._ready = door, ready

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = DoorExchange(scope, receive, send, patience=self._door.config.patience)
        if self._ready and self._door.is_draining:
            await exchange.answer(503, {}, b'{"status":"closing"}')
        else:
            await exchange.answer(200, {}, b'{"status":"ok"}')


class DoorApp:
    """The ASGI application of a door: leads each request to what answers its path, in one step.

    It tells `metrics` to this machine alone, if there are any.
    """

    def __init__(self, door: Door, metrics: PrometheusMetrics | None = None) -> None:
        self.door = door
        answers = Answers(door)
        self._endpoints: dict[tuple[str, str], PathHandler] = {
            **{("POST", f"/v1{path}"): ModelEndpoint(answers, door, form) for path, form in MODEL_PATHS.items()},
            ("POST", "/v1/embeddings"): DoorPath(door, answers.embeddings),
            ("POST", "/v1/messages/count_tokens"): DoorPath(door, answers.count_tokens, form="messages"),
            ("GET", "/v1/models"): DoorPath(door, answers.list_models),
            ("GET", "/healthz"): HealthPath(door, ready=False),
            ("GET", "/readyz"): HealthPath(door, ready=True),
        }
        if metrics is not None:
            self._endpoints["GET", "/metrics"] = MetricsPath(metrics)
        self._services = ServiceEndpoint(answers, door)
        self._not_spoken = DoorPath(door, _not_spoken)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; of a server's other messages, its start and its end are taken note of."""
        kind = scope["type"]
        if kind == "http":
            await self._endpoint(scope["method"], path_of(scope))(scope, receive, send)
        elif kind == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _endpoint(self, method: str, path: str) -> PathHandler:
        """Return what answers a path; a `HEAD` is a `GET` of which the server sends no body."""
        found = self._endpoints.get(("GET" if method == "HEAD" else method, path))
        if found is None:
            return self._services if method == "POST" and path.startswith(SERVICES) else self._not_spoken
        return found


def path_of(scope: Any) -> str:
    """Return the path of a request below the place at which the application is mounted.

    >>> path_of({"path": "/door/v1/models", "root_path": "/door"}), path_of({"path": "/v1/models"})
    ('/v1/models', '/v1/models')
    """
    path, root = scope["path"], scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


async def _live(receive: Any, send: Any) -> None:
    """Take note of the start and the end of a server, which are the supervisor's and the ledger's affair."""
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


def app(
    supervisor: ActorRef[Any],
    market: Market,
    config: DoorConfig | None = None,
    *,
    keys: KeyRing | None = None,
    metrics: PrometheusMetrics | None = None,
) -> DoorApp:
    """Return an application that answers the clients of model APIs through a supervisor of `market`.

    Mount it where you like, or serve it as it is. Without `keys`, only requests of this machine are answered. The
    accounts of the tenants have to be open at the supervisor, each by the name of its tenant. `metrics` are told at
    /metrics, to this machine alone.

    Raises ValueError if a name of the market or of the aliases has two meanings.
    """
    return DoorApp(make_door(supervisor, market, DoorConfig() if config is None else config, keys), metrics)


def make_door(supervisor: ActorRef[Any], market: Market, config: DoorConfig, keys: KeyRing | None = None) -> Door:
    """Return the door of a market. Raises as `app` does."""
    return Door(supervisor, names_of(market, config.aliases), config, keys)


async def _not_spoken(exchange: DoorExchange, _visitor: Visitor, _request_id: str) -> None:
    raise Problem(404, f"{exchange.method} {exchange.path} is not spoken here; there is {SPOKEN}", code="unknown_url")
