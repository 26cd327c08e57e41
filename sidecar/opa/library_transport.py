"""The session of ``opa-python-client``, held to what a decision point may do."""

import ssl
from collections.abc import Callable, Mapping

import aiohttp
from opa_client import AsyncOpaClient

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.endpoint import Endpoint
from sidecar.opa.wire import LONGEST_ANSWER

_BASE_HEADERS = {
    "Accept": "application/json",
    # OPA compresses on request; an answer that is never compressed needs no defence against one that explodes.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}


class LibraryTransport(AsyncOpaClient):  # type: ignore[misc]  # the library carries no types
    """``AsyncOpaClient`` with the sidecar's own session: socket, trust, no redirects, no environment, no cookies."""

    def __init__(
        self, endpoint: Endpoint, *, tls: ssl.SSLContext | None, token: Callable[[], str | None], most: int
    ) -> None:
        super().__init__(retries=0, headers=dict(_BASE_HEADERS))
        self._bearer = token
        self._most = most
        self._endpoint = endpoint
        self._tls = tls

    @property
    def open(self) -> bool:
        """Whether there is a session to ask through."""
        session: aiohttp.ClientSession | None = self._session
        return session is not None and not session.closed

    async def _init_session(self) -> None:
        self._connector = self._connect()
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            headers=self.headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            # The one deadline is the caller's, over the retry and the body too.
            timeout=aiohttp.ClientTimeout(total=None),
            # Proxy variables and .netrc would send the question, or credentials, somewhere that no setting names.
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("User-Agent",),
        )

    def _connect(self) -> aiohttp.BaseConnector:
        if self._endpoint.socket is not None:
            return aiohttp.UnixConnector(self._endpoint.socket, limit=self._most)
        return aiohttp.TCPConnector(limit=self._most, ssl=self._tls if self._tls is not None else True)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Ask once and return status, media type and body."""
        sent = {**headers, **self._authorization()}
        async with self._request("POST", url, data=body, headers=sent, allow_redirects=False) as response:
            return response.status, response.headers.get("Content-Type", ""), await _read(response)

    async def get(self, url: str, longest: int) -> tuple[int, bytes]:
        """Return status and body of a GET."""
        async with self._request("GET", url, headers=self._authorization(), allow_redirects=False) as response:
            return int(response.status), await _read(response, longest)

    async def status(self, url: str) -> int:
        """Return the status of a GET."""
        async with self._request("GET", url, headers=self._authorization(), allow_redirects=False) as response:
            return int(response.status)

    def _authorization(self) -> dict[str, str]:
        token = self._bearer()
        return {} if token is None else {"Authorization": f"Bearer {token}"}


async def _read(response: aiohttp.ClientResponse, longest: int = LONGEST_ANSWER) -> bytes:
    """Read the whole body, complete by its own framing and within the limit."""
    if "Content-Encoding" in response.headers:
        raise DecisionUnavailable(
            "OPA answered with a content encoding that was not asked for", fault=PdpFault.MEDIA_TYPE
        )
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > longest:
            raise DecisionUnavailable(f"the answer is larger than {longest} bytes", fault=PdpFault.TOO_LARGE)
        chunks.append(chunk)
    return b"".join(chunks)
