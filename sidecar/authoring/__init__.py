"""For people who write policies: check, test, explain and show a policy folder with the very OPA that decides."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.authoring import inquiry, kit, platform_entry, scaffold, token_explained, who_in_words, wording
    from sidecar.authoring.deciding import golden_case
    from sidecar.authoring.founding import found
    from sidecar.authoring.replayed_evidence import replay_evidence
    from sidecar.authoring.replaying import ReplayWanted
    from sidecar.authoring.routes import routable
else:
    __getattr__ = by_need(
        __name__,
        {
            "ReplayWanted": "replaying",
            "found": "founding",
            "golden_case": "deciding",
            "inquiry": "inquiry",
            "kit": "kit",
            "platform_entry": "platform_entry",
            "replay_evidence": "replayed_evidence",
            "routable": "routes",
            "scaffold": "scaffold",
            "token_explained": "token_explained",
            "who_in_words": "who_in_words",
            "wording": "wording",
        },
    )

__all__ = [
    "ReplayWanted",
    "found",
    "golden_case",
    "inquiry",
    "kit",
    "platform_entry",
    "replay_evidence",
    "routable",
    "scaffold",
    "token_explained",
    "who_in_words",
    "wording",
]
