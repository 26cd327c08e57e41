"""The settings of calls that wait for a second person."""

from pydantic import Field

from sidecar.settings_group import SettingsGroup


class WaitingCalls(SettingsGroup):
    """Calls that wait for the approval of a second person (`"approval": "second_person"` in policies)."""

    store: str = ""
    """Where they are kept: `file:` and a path, for one sidecar; or `mongodb:` and a collection, which several share
    through `mongodb`. Empty: such calls are refused. What is kept has the arguments of the calls."""
    lifetime_s: int = Field(default=3600, ge=60, le=86_400)
    """How long a call waits for a decision, and how long an approval that was given may be unused."""
    most: int = Field(default=512, ge=1, le=512)
    """How many are kept."""
    most_per_user: int = Field(default=8, ge=1, le=64)
    """How many are kept of one user, through all agents together; a further call is refused and does not wait."""
