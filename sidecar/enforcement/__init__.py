"""The policy enforcement point.

``point`` and ``calls`` own the order, ``turn`` the facts of a message, ``reply`` what transports render, ``evidence``
the record; ``handshake`` is what only the revisions with sessions have, ``notices`` who is told of changes.
"""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.enforcement.approval_desk import ApprovalDesk
    from sidecar.enforcement.bounds import Bounds
    from sidecar.enforcement.budget import Budget
    from sidecar.enforcement.call_limits import AnswerTooLarge, TimeLimitReached
    from sidecar.enforcement.confirmation import ConfirmationMissing
    from sidecar.enforcement.event_stream import StreamEvent
    from sidecar.enforcement.killswitch import ByOthers, KillSwitch, OperatorCommandFailed
    from sidecar.enforcement.notices import TooManyStreams
    from sidecar.enforcement.offloading import LARGE_BYTES
    from sidecar.enforcement.point import EnforcementPoint
    from sidecar.enforcement.refusals import OWN_SOURCE
    from sidecar.enforcement.reply import Accepted, Answer, Refused, Reply, Stream
    from sidecar.enforcement.request_states import UsedInMemory
    from sidecar.enforcement.shared_sessions import SharedSessions
    from sidecar.enforcement.suspensions import MOST_SUSPENSIONS, Suspensions
    from sidecar.enforcement.turn import Caller, EnforcementRules, Exchange, Ports
    from sidecar.enforcement.watches import TooManyWatches
else:
    __getattr__ = by_need(
        __name__,
        {
            "LARGE_BYTES": "offloading",
            "MOST_SUSPENSIONS": "suspensions",
            "OWN_SOURCE": "refusals",
            "Accepted": "reply",
            "Answer": "reply",
            "AnswerTooLarge": "call_limits",
            "ApprovalDesk": "approval_desk",
            "Bounds": "bounds",
            "Budget": "budget",
            "ByOthers": "killswitch",
            "Caller": "turn",
            "ConfirmationMissing": "confirmation",
            "EnforcementPoint": "point",
            "EnforcementRules": "turn",
            "Exchange": "turn",
            "KillSwitch": "killswitch",
            "OperatorCommandFailed": "killswitch",
            "Ports": "turn",
            "Refused": "reply",
            "Reply": "reply",
            "SharedSessions": "shared_sessions",
            "Stream": "reply",
            "StreamEvent": "event_stream",
            "Suspensions": "suspensions",
            "TimeLimitReached": "call_limits",
            "TooManyStreams": "notices",
            "TooManyWatches": "watches",
            "UsedInMemory": "request_states",
        },
    )

__all__ = [
    "LARGE_BYTES",
    "MOST_SUSPENSIONS",
    "OWN_SOURCE",
    "Accepted",
    "Answer",
    "AnswerTooLarge",
    "ApprovalDesk",
    "Bounds",
    "Budget",
    "ByOthers",
    "Caller",
    "ConfirmationMissing",
    "EnforcementPoint",
    "EnforcementRules",
    "Exchange",
    "KillSwitch",
    "OperatorCommandFailed",
    "Ports",
    "Refused",
    "Reply",
    "SharedSessions",
    "Stream",
    "StreamEvent",
    "Suspensions",
    "TimeLimitReached",
    "TooManyStreams",
    "TooManyWatches",
    "UsedInMemory",
]
