"""docs/limits.md names settings, defaults, errors and metrics that there are."""

import re
from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel

from sidecar import app
from sidecar.enforcement import Bounds
from sidecar.errors import SidecarError
from sidecar.session_settings import SessionLimits
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


ASKED_FOR = {
    "sizes": {"max_request_bytes"},
    "nesting": {"max_nesting"},
    "sessions of one principal, and in total": {"sessions.per_identity", "sessions.total"},
    "streams": {"sessions.streams_per_identity", "sessions.listeners_per_identity"},
    "watched resources": {"sessions.watches_per_subscriber", "sessions.watches"},
    "members of a batch": {"sessions.batch_members"},
    "calls under way": {"sessions.calls_per_identity"},
    "headers": {"max_header_bytes"},
    "slow bodies": {"connections.body_s", "connections.head_s", "connections.write_s"},
    "connections": {"connections.total", "connections.per_address", "connections.idle_s", "connections.first_byte_s"},
}
"""What a server that many share has to bound, and the settings that do."""

FIXED = {
    "messages over 64 kB that begin at a time, callers in turns",
    "values of a message",
    "numbers and ids of a message",
    "confirmations without a session that are remembered as used",
    "characters of a `requestState`",
}
"""What no setting bounds."""

SAYS_HOW_IT_ENDS = re.compile(r"`[a-z_]+`|\u2013 \([^)]+\)")


@pytest.mark.parametrize("kind", ASKED_FOR)
def test_each_kind_of_limit_has_a_setting_a_default_an_end_and_a_metric(kind: str) -> None:
    rows = {setting.strip("`"): rest for setting, *rest in ROWS.values()}
    for setting in ASKED_FOR[kind]:
        said, error, metric = rows[setting]
        assert said == str(default(setting))
        assert SAYS_HOW_IT_ENDS.fullmatch(error), f"{setting}: an error, or what ends instead"
        assert metric.strip("`") in METRICS, setting


def test_what_has_no_setting_is_a_closed_list() -> None:
    assert {what for what, (setting, *_) in ROWS.items() if setting == "fixed"} == FIXED


@pytest.mark.parametrize(
    "name", ["max_nesting", *(f"sessions.{name}" for name in ("batch_members", "watches", "watches_per_subscriber"))]
)
def test_a_bound_of_the_wire_has_a_closed_range(name: str) -> None:
    model: Any = Settings
    *group, last = name.split(".")
    for part in group:
        model = model.model_fields[part].annotation
    ends = {type(one).__name__ for one in model.model_fields[last].metadata}
    assert {"Ge", "Le"} <= ends


def test_what_settings_say_is_what_is_enforced() -> None:
    given = {"batch_members": 7, "watches": 99, "watches_per_subscriber": 9, "listeners_per_identity": 3}
    config = Settings.model_construct(**_complete() | {"max_nesting": 31, "sessions": SessionLimits(**given)})
    bounds = app._rules(config, launched=False).bounds
    assert bounds == Bounds(nesting=31, **given)
    assert app._rules(Settings.model_construct(**_complete()), launched=False).bounds == Bounds()


def _complete() -> dict[str, Any]:
    """Every setting as it is when nobody sets it."""
    return {"servers": ()} | {
        name: field.get_default(call_default_factory=True)
        for name, field in Settings.model_fields.items()
        if not field.is_required()
    }


@pytest.mark.parametrize("group", GROUPS)
def test_no_limit_is_left_out(group: str) -> None:
    model: Any = Settings.model_fields[group].annotation
    named = {setting.strip("`") for setting, *_ in ROWS.values()}
    assert {f"{group}.{name}" for name in model.model_fields} - NO_LIMITS <= named
