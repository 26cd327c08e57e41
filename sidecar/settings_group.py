"""What every group of settings is."""

from pydantic import BaseModel, ConfigDict


class SettingsGroup(BaseModel):
    """A group of settings: immutable, closed against unknown names, and explained field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
