"""A stream of notifications is no longer than the token that opened it."""

import time
from pathlib import Path

from tests.edge.endpoint import INITIALIZE, encoded, request, running, token


async def test_a_stream_ends_when_its_token_expires_and_not_before(tmp_path: Path) -> None:
    async with running(tmp_path) as endpoint:
        ends = int(time.time()) + 2
        bearer = f"Bearer {token(exp=ends)}"
        session = (await endpoint.ask(body=encoded(INITIALIZE), Authorization=bearer)).headers["mcp-session-id"]
        asked = {"Authorization": bearer, "Accept": "text/event-stream", "Mcp_Session_Id": session}
        [stream] = await endpoint.raw(request("GET", "/mcp", b"", **asked))
        assert stream.status == 200
        assert stream.body.endswith(b"0\r\n\r\n"), "it was ended, not cut"
        assert time.time() >= ends
        late = {**asked, "Authorization": f"Bearer {token(exp=ends - 300)}"}
        [other] = await endpoint.raw(request("GET", "/mcp", b"", **late))
        assert other.status == 401
