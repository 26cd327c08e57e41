"""One caller reads so many streams at a time, and is in the way of nobody else and of no newer stream of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from sidecar.demo.identities import ANALYST, Person
from tests.integration.deployment import HR_ADMIN, Deployment, deployed
from tests.integration.launched import INITIALIZE


@asynccontextmanager
async def session(running: Deployment, person: Person, http: aiohttp.ClientSession) -> AsyncIterator[dict[str, str]]:
    """The headers of a new session."""
    headers = {
        "Authorization": f"Bearer {running.token(person)}",
        "Accept": "application/json, text/event-stream",
    }
    async with http.post(running.url, json=INITIALIZE, headers=headers) as answer:
        assert answer.status == 200
        yield {**headers, "Accept": "text/event-stream", "Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}


async def opened(stack: AsyncExitStack, url: str, http: aiohttp.ClientSession, headers: dict[str, str]) -> int:
    """Open a stream, and leave it open."""
    answer = await stack.enter_async_context(http.get(url, headers=headers))
    if answer.status == 200:
        await answer.content.readany()  # the comment that says that it is open
    return answer.status


@pytest.mark.real
async def test_a_caller_reads_so_many_streams_at_a_time(tmp_path: Path, database: str) -> None:
    environment = {"SIDECAR_SESSIONS__STREAMS_PER_IDENTITY": "2"}
    with deployed(tmp_path, database, environment=environment) as running:
        async with aiohttp.ClientSession() as http, AsyncExitStack() as stack:
            own = [await stack.enter_async_context(session(running, ANALYST, http)) for _ in range(3)]
            other = await stack.enter_async_context(session(running, HR_ADMIN, http))
            assert [await opened(stack, running.url, http, one) for one in own] == [200, 200, 429]
            assert await opened(stack, running.url, http, other) == 200, "another caller has room of its own"
            assert await opened(stack, running.url, http, own[0]) == 200, "a newer one takes the earlier one's place"
        _, metrics = running.admin("/metrics")
        assert 'error="too_many_streams"' in metrics
