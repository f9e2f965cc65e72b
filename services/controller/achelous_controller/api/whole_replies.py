"""Replies that are ready go out whole: head and body are one write, and the client's one read.

By ASGI a reply is two messages, each of which is checked and written by itself. The protocol here
offers an extension beside them; where it is not offered a reply goes out by messages.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.responses import Response
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

_EXTENSION: Final = "achelous.whole_reply"
_SEND: Final = "send"


SendWhole = Callable[[Response], bool]
"""Sends what has all of its body, and headers that are ours; False: it has to go by messages."""


def taken_from(scope: Scope) -> SendWhole | None:
    """How to send the reply to a request, if that is offered.

    It is taken out: it refers to what refers to the scope, and cycles are left to the collector.
    """
    send: SendWhole | None = scope.get("extensions", {}).pop(_EXTENSION, {}).get(_SEND)
    return send


class WholeReplies(HttpToolsProtocol):
    """uvicorn's protocol with the extension."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.scope["extensions"] = {_EXTENSION: {_SEND: partial(self._send, cycle)}}
        super()._start_asgi_task(cycle, app)

    def _send(self, cycle: RequestResponseCycle, response: Response) -> bool:
        if (
            cycle.disconnected
            or cycle.response_started
            or self.flow.write_paused
            or cycle.scope["method"] == "HEAD"
        ):
            return False
        cycle.response_started = cycle.response_complete = True
        parts = [STATUS_LINE[response.status_code]]
        for name, value in (*cycle.default_headers, *response.raw_headers):
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", bytes(response.body))
        self.transport.write(b"".join(parts))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True
