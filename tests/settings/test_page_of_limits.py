"""docs/limits.md names settings, defaults, errors and metrics that there are."""

import re
from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel

from sidecar.errors import SidecarError
from sidecar.settings import Settings
from tests.parts import ROOT

PAGE = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([^|]+) \| (`[a-z_.]+`|fixed) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = {what: rest for what, *rest in ROW.findall(PAGE)}
METRICS = set(
    re.findall(r'"(mcp_sidecar\.[a-z_.]+)"', (ROOT / "sidecar/telemetry/metrics.py").read_text(encoding="utf-8"))
)
GROUPS = ("sessions", "connections")
NO_LIMITS = {"sessions.ended"}
"""Settings of these groups that bound nothing."""


import_module("sidecar.app")  # and with it every class of errors


def labels(root: type[SidecarError]) -> set[str]:
    return {root.label} | {label for child in root.__subclasses__() for label in labels(child)}


def default(name: str) -> Any:
    """The default of a setting; raises where there is none of this name."""
    model: type[BaseModel] = Settings
    *group, last = name.split(".")
    for part in group:
        found = model.model_fields[part].annotation
        assert isinstance(found, type)
        assert issubclass(found, BaseModel)
        model = found
    return model.model_fields[last].default


def test_the_page_has_rows() -> None:
    assert len(ROWS) >= 12


@pytest.mark.parametrize("what", ROWS)
def test_a_row_says_what_is_so(what: str) -> None:
    setting, said, error, metric = ROWS[what]
    assert setting == "fixed" or str(default(setting.strip("`"))) == said
    assert not error.startswith("`") or error.strip("`") in labels(SidecarError)
    assert not metric.startswith("`") or metric.strip("`") in METRICS


@pytest.mark.parametrize("group", GROUPS)
def test_no_limit_is_left_out(group: str) -> None:
    model: Any = Settings.model_fields[group].annotation
    named = {setting.strip("`") for setting, *_ in ROWS.values()}
    assert {f"{group}.{name}" for name in model.model_fields} - NO_LIMITS <= named
