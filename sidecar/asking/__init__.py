"""Questions to the evidence: is it whole, who did what, what changed. The command line loads its commands by name."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.asking.progress import shown
    from sidecar.asking.selecting import TIME, stored_time
else:
    __getattr__ = by_need(__name__, {"TIME": "selecting", "shown": "progress", "stored_time": "selecting"})

__all__ = ["TIME", "shown", "stored_time"]
