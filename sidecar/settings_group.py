"""What every group of settings is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]


class SettingsGroup(BaseModel):
    """A group of settings: immutable, closed against unknown names, and explained field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
