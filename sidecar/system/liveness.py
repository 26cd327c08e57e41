"""Whether a process is alive at this very moment, asked of the kernel.

An event loop learns of a child's end some time after it; what must not outlive the process cannot wait for that.
"""

import os
import select


class Pulse:
    """Feels the pulse of one process through a pidfd (Linux 5.3); where there is none, nothing counts as alive."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._poll = select.poll()

    def watch(self, pid: int) -> None:
        """Begin; ``pid`` is a child of this process that has not been waited for."""
        try:
            self._fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            return
        self._poll.register(self._fd, select.POLLIN)

    def alive(self) -> bool:
        """Whether the process has not ended. A pidfd becomes readable with the end, before anybody waits for it."""
        return self._fd is not None and not self._poll.poll(0)

    def close(self) -> None:
        """Forget the process."""
        fd, self._fd = self._fd, None
        if fd is not None:
            self._poll.unregister(fd)
            os.close(fd)
