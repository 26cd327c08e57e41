"""How long a test waits for what must happen.

No test measures the machine: a wait of this length only tells what hangs from what is slow. At a load of 20 on two
cores a start of the sidecar has taken more than a minute.
"""

from typing import Final

HANG_S: Final = 300.0
"""Seconds after which something counts as hung; below the 600 s that pytest gives a whole test."""
