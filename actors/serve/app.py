"""The front door as an ASGI application: its paths, and what each of them speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Route

from actors.serve.answering import Answers
from actors.serve.config import DoorConfig
from actors.serve.door import Door
from actors.serve.exchange import DoorExchange
from actors.serve.names import Names
from actors.serve.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.market.market import Market
    from actors.model_calls.request import Form
    from actors.serve.door import Visitor
    from actors.serve.keys import KeyRing
    from runtime import ActorRef

MODEL_PATHS: dict[str, Form] = {"/chat/completions": "chat", "/responses": "responses", "/messages": "messages"}
SPOKEN = (
    "POST /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/messages, /v1/messages/count_tokens, "
    "/v1/services/NAME, and GET /v1/models"
)


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
        name = scope["path_params"]["name"]

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


def app(
    supervisor: ActorRef[Any], market: Market, config: DoorConfig | None = None, *, keys: KeyRing | None = None
) -> Starlette:
    """Return an application that answers the clients of model APIs through a supervisor of `market`.

    Mount it where you like, or serve it as it is. Without `keys`, only requests of this machine are answered. The
    accounts of the tenants have to be open at the supervisor, each by the name of its tenant.

    Raises ValueError if a name of the market or of the aliases has two meanings.
    """
    return starlette_of(make_door(supervisor, market, DoorConfig() if config is None else config, keys))


def make_door(supervisor: ActorRef[Any], market: Market, config: DoorConfig, keys: KeyRing | None = None) -> Door:
    """Return the door of a market. Raises as `app` does."""
    return Door(supervisor, names_of(market, config), config, keys)


def names_of(market: Market, config: DoorConfig) -> Names:
    """Return what clients may ask for. Raises as `app` does."""
    return Names((listing.provider for listing in market.providers), config.aliases)


def starlette_of(door: Door) -> Starlette:
    """Return the application of a door."""
    return Starlette(routes=routes(door))


def routes(door: Door) -> list[Route]:
    """Return the paths of a door."""
    answers = Answers(door)
    models = {path: ModelEndpoint(answers, door, form) for path, form in MODEL_PATHS.items()}
    return [
        *(Route(f"/v1{path}", endpoint, methods=["POST"]) for path, endpoint in models.items()),
        Route("/v1/embeddings", DoorPath(door, answers.embeddings), methods=["POST"]),
        Route("/v1/messages/count_tokens", DoorPath(door, answers.count_tokens, form="messages"), methods=["POST"]),
        Route("/v1/models", DoorPath(door, answers.list_models), methods=["GET"]),
        Route("/v1/services/{name:path}", ServiceEndpoint(answers, door), methods=["POST"]),
        Route("/healthz", HealthPath(door, ready=False), methods=["GET"]),
        Route("/readyz", HealthPath(door, ready=True), methods=["GET"]),
        Route("/{path:path}", DoorPath(door, _not_spoken), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]


async def _not_spoken(exchange: DoorExchange, _visitor: Visitor, _request_id: str) -> None:
    raise Problem(404, f"{exchange.method} {exchange.path} is not spoken here; there is {SPOKEN}", code="unknown_url")
