"""One caller of a deployment, as bytes on the wire."""

from dataclasses import dataclass

import aiohttp

from sidecar.demo.identities import Person
from tests.integration.deployment import Deployment


@dataclass
class Caller:
    """One session of one caller, or none yet."""

    running: Deployment
    http: aiohttp.ClientSession
    caller: Person
    session: str = ""

    def headers(self, **more: str) -> dict[str, str]:
        """The headers of a request."""
        given = {
            "Authorization": f"Bearer {self.running.token(self.caller)}",
            "Accept": "application/json, text/event-stream",
        }
        return given | ({"Mcp-Session-Id": self.session} if self.session else {}) | more
