"""Payment gateways whose verbs are counted: nothing of what they say is changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from models.payments.gateway import Gateway, GatewayAway, GatewayNo
from server.clock import SystemClock
from server.metrics import GATEWAY_REQUESTS, GATEWAY_SECONDS

# The verbs that ask the gateway something. ``parse`` asks nothing, and webhooks are counted at their door.
VERBS = (
    *("checkout", "query", "refund", "refund_status", "banks", "account_name"),
    *("pay_out", "payout_status", "authorize_payout", "resend_password"),
)


def count_gateway(gateway: Gateway) -> None:
    """Count what this gateway is asked from now on, by its own name."""
    for verb in VERBS:
        setattr(gateway, verb, _counted(gateway.name, verb, getattr(gateway, verb)))


def _counted(gateway: str, verb: str, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def ask(*args: Any, **more: Any) -> Any:
        began, outcome = SystemClock.monotonic(), "fault"
        try:
            answer = await work(*args, **more)
            outcome = "ok"
            return answer
        except GatewayNo:
            outcome = "no"
            raise
        except GatewayAway:
            outcome = "away"
            raise
        finally:
            GATEWAY_REQUESTS.labels(gateway, verb, outcome).inc()
            GATEWAY_SECONDS.labels(gateway).observe(SystemClock.monotonic() - began)

    return ask
