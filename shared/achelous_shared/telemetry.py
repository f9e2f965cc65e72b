"""Logs, health and metrics: the same on every service."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from itertools import accumulate
from pathlib import Path
from typing import Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LATENCY_BUCKETS_S: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
_BOUNDS: Final = (*map(str, LATENCY_BUCKETS_S), "+Inf")

Check = Callable[[], str | None]
"""None when all is well, else what is wrong."""


def setup_logging(service: str, level: str) -> None:
    """Log to standard error, one line a record, the service's name in each."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format=f"%(asctime)s %(levelname).1s {service} %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("nats").setLevel(logging.ERROR)  # bus.py says it better


def health_routes(checks: dict[str, Check], registry: CollectorRegistry) -> list[Route]:
    """/healthz (the process answers), /readyz (every check passes, or 503 with why), /metrics."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        found = {name: check() for name, check in checks.items()}
        ready = not any(found.values())
        body = {"ready": ready, "checks": {name: why or "ok" for name, why in found.items()}}
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
    ]


def health_app(checks: dict[str, Check], registry: CollectorRegistry) -> Starlette:
    """An application of nothing but the health routes."""
    return Starlette(routes=health_routes(checks, registry))


def latency_buckets(counts: Iterable[int]) -> list[tuple[str, float]]:
    """Buckets as `HistogramMetricFamily` takes them: cumulative, by the text of their bound.

    ``counts``: how many were in each of `LATENCY_BUCKETS_S`, and above.
    """
    return list(zip(_BOUNDS, accumulate(counts), strict=True))


async def serve_http(
    app: ASGIApp,
    listen: str,
    address_file: Path,
    protocol: type[asyncio.Protocol] = HttpToolsProtocol,
) -> None:
    """Serve ``app`` at ``listen`` (address:port, port 0 picks one) until cancelled.

    The address in use is written to ``address_file`` once bound; the file goes at the end.
    ``protocol``: of each connection, made as uvicorn makes its own.
    """
    host, _, port = listen.rpartition(":")
    listener = socket.create_server((host, int(port)), backlog=2048)
    bound = listener.getsockname()
    address_file.parent.mkdir(parents=True, exist_ok=True)
    scratch = address_file.with_suffix(".tmp")
    scratch.write_text(f"{bound[0]}:{bound[1]}\n")
    scratch.rename(address_file)  # a reader sees the whole address or no file
    config = uvicorn.Config(
        app,
        http=protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="none",
        proxy_headers=False,  # nobody here asks where a request came from
        server_header=False,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    finally:
        for listening in server.servers:  # uvicorn leaves them open when it is cancelled
            listening.close()
        listener.close()
        with suppress(FileNotFoundError):
            address_file.unlink()


class _Server(uvicorn.Server):
    """Leaves signals to the service's runner."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers: list[asyncio.Server] = []

    def install_signal_handlers(self) -> None:
        """Overrides: none."""

    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Overrides: none."""
        return nullcontext()
