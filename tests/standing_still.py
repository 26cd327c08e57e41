"""Processes that stand still for a while, every thread of them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def standing_still(*pids: int) -> Iterator[None]:
    """Stop processes for the block, and return when none of their threads can answer any more."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        while not all(map(_stands, pids)):
            time.sleep(0.001)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _stands(pid: int) -> bool:
    threads = psutil.Process(pid).threads()
    return {psutil.Process(thread.id).status() for thread in threads} == {psutil.STATUS_STOPPED}
