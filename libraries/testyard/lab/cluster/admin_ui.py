"""The admin UI of a node: a small page and its health, over HTTPS."""

from __future__ import annotations

import ssl
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from testyard.lab.children import listening_socket
from testyard.lab.cluster.http_listener import HttpListener
from testyard.lab.cluster.plan import HOST
from testyard.lab.cluster.shell import ServiceState, System

if TYPE_CHECKING:
    from starlette.requests import Request

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{node} - administration</title></head>
<body>
<h1>{node}</h1>
<p>Deployment {deployment}, up for {uptime:.0f} s.</p>
<table>
<tr><th>Service</th><th>State</th></tr>
{services}
</table>
</body>
</html>
"""


class AdminUi:
    """The service ``admin-ui`` of a node.

    Args:
        system: The node.
        deployment: Id of the deployment.
        port: TCP port.
        certificate: A file with its certificate and key.
    """

    def __init__(self, system: System, deployment: str, port: int, certificate: Path) -> None:
        self._system = system
        self._deployment = deployment
        self._port = port
        self._certificate = certificate
        self._listener: HttpListener | None = None

    @property
    def state(self) -> ServiceState:
        """Whether it answers."""
        return ServiceState.INACTIVE if self._listener is None else ServiceState.ACTIVE

    async def start(self) -> None:
        """Answer requests; nothing when it does."""
        if self._listener is not None:
            return
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self._certificate)
        application = Starlette(routes=[Route("/", self._page), Route("/health", self._health)])
        listener = HttpListener(application, tls)
        await listener.open(listening_socket(HOST, self._port))
        self._listener = listener

    async def stop(self) -> None:
        """Refuse connections; nothing when it does."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _page(self, _: Request) -> HTMLResponse:
        rows = (f"<tr><td>{name}</td><td>{state}</td></tr>" for name, state in self._services().items())
        return HTMLResponse(
            PAGE.format(
                node=escape(self._system.hostname),
                deployment=escape(self._deployment),
                uptime=self._system.uptime_seconds,
                services="\n".join(rows),
            )
        )

    async def _health(self, _: Request) -> JSONResponse:
        return JSONResponse(
            {
                "status": "ok",
                "deployment": self._deployment,
                "node": self._system.hostname,
                "boot_id": self._system.boot_id,
                "uptime": self._system.uptime_seconds,
                "services": self._services(),
            }
        )

    def _services(self) -> dict[str, str]:
        return {name: service.state.value for name, service in self._system.services.items()}
