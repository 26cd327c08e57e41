"""Ctrl-C while modules are loaded."""

import signal
import threading
from types import TracebackType


class EndedByInterrupt:
    """A time in which Ctrl-C ends the process as the shell expects, without the traceback of whichever module was read.

    A process that was told to ignore it (``nohup``) still does, and one that handles it by itself goes on to do so.
    """

    def __init__(self) -> None:
        by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._may_change = by_python and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        """Leave the signal to the operating system."""
        if self._may_change:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Give it back to Python."""
        if self._may_change:
            signal.signal(signal.SIGINT, signal.default_int_handler)
