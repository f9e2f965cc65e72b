"""What this gateway would do with a frame now: answers `TraceRequest`s."""

import time
from typing import Final

from achelous_gateway.relay import Relay
from achelous_shared.messages import TraceReply, TraceRequest
from achelous_shared.tracing import answer, reply_of, view

_PROGRAM: Final = "relay"


class TraceDesk:
    """Runs the frames that operators ask about."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def answer(self, data: bytes) -> bytes:
        """See `tracing.answer`."""
        return await answer(data, self._trace)

    async def _trace(self, request: TraceRequest) -> TraceReply:
        relay = self._relay
        if relay.tracer is None:
            raise LookupError("this gateway has no relay that could be traced")
        traced, run = await relay.tracer.run(_PROGRAM, request.frame, relay.ifindex, {})
        now_ns = time.monotonic_ns()
        return reply_of(traced, run, tuple(view(traced, step, now_ns) for step in run.steps))
