"""The operating system's part: child processes that end with this one, their private folders, clocks, randomness."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.system.backoff import BackOff
    from sidecar.system.certificates import subject_of, thumbprint_of
    from sidecar.system.client_streams import ClientGone, ClientStreams
    from sidecar.system.clock import SystemClock
    from sidecar.system.followed_file import FollowedFiles, follow_connection, follow_files, stamps
    from sidecar.system.followed_tls import FollowedTls
    from sidecar.system.identifiers import RandomIdentifiers
    from sidecar.system.liveness import Pulse
    from sidecar.system.os_user import OsUser
    from sidecar.system.outage import Outage
    from sidecar.system.process import (
        StandardStreams,
        ended,
        in_thread,
        kill,
        make_home,
        remove,
        spawn,
        start_tied,
        to_its_end,
    )
    from sidecar.system.request_id import REQUEST_ID
    from sidecar.system.retired import Retired
else:
    __getattr__ = by_need(
        __name__,
        {
            "REQUEST_ID": "request_id",
            "BackOff": "backoff",
            "ClientGone": "client_streams",
            "ClientStreams": "client_streams",
            "FollowedFiles": "followed_file",
            "FollowedTls": "followed_tls",
            "OsUser": "os_user",
            "Outage": "outage",
            "Pulse": "liveness",
            "RandomIdentifiers": "identifiers",
            "Retired": "retired",
            "StandardStreams": "process",
            "SystemClock": "clock",
            "ended": "process",
            "follow_connection": "followed_file",
            "follow_files": "followed_file",
            "in_thread": "process",
            "kill": "process",
            "make_home": "process",
            "remove": "process",
            "spawn": "process",
            "stamps": "followed_file",
            "start_tied": "process",
            "subject_of": "certificates",
            "thumbprint_of": "certificates",
            "to_its_end": "process",
        },
    )

__all__ = [
    "REQUEST_ID",
    "BackOff",
    "ClientGone",
    "ClientStreams",
    "FollowedFiles",
    "FollowedTls",
    "OsUser",
    "Outage",
    "Pulse",
    "RandomIdentifiers",
    "Retired",
    "StandardStreams",
    "SystemClock",
    "ended",
    "follow_connection",
    "follow_files",
    "in_thread",
    "kill",
    "make_home",
    "remove",
    "spawn",
    "stamps",
    "start_tied",
    "subject_of",
    "thumbprint_of",
    "to_its_end",
]
