"""The doors to all providers, as their supervisor keeps them: opened when needed, closed when a breaker opens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from actors.errors.classification import classify
from actors.errors.families import NotAdmitted, Unclassified
from actors.events import HealthChecked
from actors.policies.breaker.circuit_breaker import Isolated, Open
from actors.provider_gateway.gateway import ProviderGateway
from actors.provider_gateway.messages import TRANSPORT_GRACE, CancelCall, CheckHealth, Health, LookUp, SentMarker
from runtime import ActorCrashed, AskTimeout, Restart, RuntimeFault

if TYPE_CHECKING:
    from actors.market.market import HealthConfig
    from actors.provider_gateway.messages import Call
    from actors.supervisor.targets.target import Target
    from actors.transports.reconciliation import Finding
    from actors.transports.transport import ProviderCall, ProviderReply
    from runtime import ActorRef, Context


FINDING_OUT = 5.0
"""Seconds that a transport has to find out what became of a call."""

GatewayRef: TypeAlias = "ActorRef[Call | CheckHealth | LookUp | CancelCall]"


class Gateways:
    """Starts, asks and stops the gateways of providers, each at most once at a time."""

    def __init__(self, context: Context, health: HealthConfig) -> None:
        self._context = context
        self._health = health
        self._started = 0

    def open(self, target: Target) -> GatewayRef:
        """Return the running gateway of a provider, and start one where there is none.

        Raises `Unclassified` where its transport cannot be made.
        """
        if target.gateway is None:
            listing = target.listing

            def make() -> ProviderGateway:
                gateway = ProviderGateway(listing)
                target.learn_of(gateway.transport)
                return gateway

            self._started += 1
            try:
                # Never restarted by the engine: when it may run again is for the breaker to decide.
                target.gateway = self._context.spawn(
                    make,
                    name=f"gateway-{self._started}-{target.name.replace('/', '-')}",
                    restart=Restart.TEMPORARY,
                    stop_timeout=listing.timeout + TRANSPORT_GRACE,
                )
            except RuntimeFault:
                raise
            except Exception as error:
                # A market is the user's; one provider that cannot be reached must not take the others along.
                what = f"no transport to {target.name!r} could be made: {type(error).__name__}: {error}"
                raise Unclassified(what, provider=target.name, outcome="not_started") from error
        return target.gateway

    def close(self, target: Target) -> None:
        """Stop the gateway of a provider, if it runs; it finishes the calls under way."""
        if target.gateway is not None:
            target.gateway.stop()
            target.gateway = None

    async def call(self, target: Target, call: ProviderCall, sending: SentMarker) -> ProviderReply:
        """Make one call; raises members of `CallFailed` only."""
        gateway: GatewayRef | None = None
        try:
            gateway = self.open(target)
            return await gateway.ask(target.call(call, sending), timeout=call.timeout + TRANSPORT_GRACE)
        except (AskTimeout, ActorCrashed) as fault:
            cause: Exception = fault
            if isinstance(fault, ActorCrashed):
                self._forget(target, gateway)
                cause = ConnectionResetError(str(fault))
            raise classify(
                cause,
                provider=target.name,
                sent=sending.is_sent,
                paid=target.paid or call.max_cost > 0,
                idempotent=target.idempotent != "no",
            ) from fault
        except RuntimeFault as fault:
            self._forget(target, gateway)
            raise NotAdmitted(f"{target.name!r}: {fault}", provider=target.name) from fault

    async def is_worth_a_probe(self, target: Target, *, within: float) -> bool:
        """Check a provider that is due for its probe, for `within` seconds at most; tell whether to make it."""
        target.is_unwell = (await self.check(target, max_age=0.0, within=within)).is_unwell
        if not (target.is_unwell and target.probe_check.is_believed):
            return True
        target.probe_check = target.probe_check.after_spared()
        return False

    async def check(self, target: Target, *, max_age: float, within: float = math.inf) -> Health:
        """Return the provider's health, less than `max_age` seconds old; one that does not answer is unhealthy."""
        started = self._context.now()
        if not is_fresh(target, max_age=max_age, now=started):
            limit = min(self._health.timeout, within)
            gateway: GatewayRef | None = None
            try:
                gateway = self.open(target)
                question = CheckHealth(max_age=max_age, timeout=limit)
                target.health = await gateway.ask(question, timeout=limit + 2 * TRANSPORT_GRACE)
            except (RuntimeFault, Unclassified) as error:
                target.health = Health(started, problem=str(error))
                if not isinstance(error, AskTimeout):
                    self._forget(target, gateway)
            finally:
                self._close_if_isolated(target)
            self._context.events.publish(HealthChecked(provider=target.name, problem=target.health.problem))
        return target.health or Health(started)

    async def look_up(self, target: Target, call: ProviderCall) -> Finding:
        """Find out what became of a call; raises members of `CallFailed` and of `RuntimeFault` where that fails."""
        try:
            return await self.open(target).ask(LookUp(call, FINDING_OUT), timeout=FINDING_OUT + TRANSPORT_GRACE)
        finally:
            self._close_if_isolated(target)

    async def cancel(self, target: Target, call: ProviderCall) -> Finding:
        """Call off a call, and return what became of it; raises as `look_up` does."""
        try:
            return await self.open(target).ask(CancelCall(call, FINDING_OUT), timeout=FINDING_OUT + TRANSPORT_GRACE)
        finally:
            self._close_if_isolated(target)

    def _close_if_isolated(self, target: Target) -> None:
        """Stop a gateway that was opened for a question alone: the probe gets a fresh one."""
        if isinstance(target.state.breaker, Open | Isolated):
            self.close(target)

    def _forget(self, target: Target, gateway: GatewayRef | None) -> None:
        """Let the next call start another gateway, unless somebody has done so already."""
        if target.gateway is gateway:
            target.gateway = None


def is_fresh(target: Target, *, max_age: float, now: float) -> bool:
    """Tell whether the last check of a provider is less than `max_age` seconds old."""
    return target.health is not None and now - target.health.checked_at < max_age
