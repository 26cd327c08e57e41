"""For how long a call may run and how large its answer may be, where policy says so."""

import asyncio

from sidecar.errors import SidecarError, UpstreamError
from sidecar.model import UpstreamResult


class TimeLimitReached(UpstreamError):
    """The server took longer for a call than policy lets it run, so it was ended there."""

    label = "time_limit"
    public = (
        "Policy gives this call a limited time to run. It was over, so the call was ended and nothing comes back. Ask "
        "for less: fewer documents, a range of an indexed field, a $match and a $limit at the start."
    )


class AnswerTooLarge(SidecarError):
    """The server's answer is larger than policy lets it be."""

    label = "answer_too_large"
    public = (
        "The answer is larger than policy lets it be, so it is withheld. Ask for less: fewer documents, fewer fields "
        "(a projection), a smaller range."
    )


async def answered_within(time_ms: int, answer: asyncio.Task[UpstreamResult]) -> UpstreamResult:
    """Return an answer that comes in time; waiting for a turn at the server counts.

    Raises:
        TimeLimitReached: it does not; then the call was ended at the server.
        UpstreamError: as the task does.
    """
    try:
        async with asyncio.timeout(time_ms / 1000):
            return await answer
    except TimeoutError:
        raise TimeLimitReached from None
