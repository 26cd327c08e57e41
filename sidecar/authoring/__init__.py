"""For people who write policies: check, test, explain and show a policy folder with the very OPA that decides."""

from sidecar.authoring import kit, platform_entry, scaffold, token_explained, who_in_words, wording
from sidecar.authoring.deciding import golden_case
from sidecar.authoring.routable import routable

__all__ = ["golden_case", "kit", "platform_entry", "routable", "scaffold", "token_explained", "who_in_words", "wording"]
