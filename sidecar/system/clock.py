"""The machine's clocks."""

import time


class SystemClock:
    """The machine's clocks. Each call looks at them twenty times, so nothing stands between."""

    time_ns = staticmethod(time.time_ns)
    """Nanoseconds since the epoch."""
    monotonic = staticmethod(time.monotonic)
    """Seconds on a clock that never goes back."""
