"""Nothing in the package, its tools and its benchmarks is there that nothing uses; tests alone are no use.

``vulture`` reads names: what is used anywhere under the same name counts as used. What it reports and is used all the
same stands below, with who uses it.
"""

from pathlib import Path

import pytest
from vulture import Vulture  # type: ignore[import-untyped]  # it carries no types

from tests.parts import ROOT

DECORATORS = ["@*.command", "@*.group", "@field_validator", "@model_validator"]
"""Click and Pydantic call what these mark."""

LEAST_CONFIDENCE = 60
"""Per cent; the lowest that vulture gives to a function, class, attribute or variable that it sees no use of."""

USED: dict[str, str] = {
    "format_commands": "click calls it for the help of a group (Group)",
    "handle_error": "aiohttp calls it where a request could not be read (web_protocol.RequestHandler)",
    "_init_session": "opa-python-client calls it before the first request (AsyncOpaClient)",
    "V2024_11_05": "a member that is looked up by its value, the revision a client asks for",
    "model_config": "Pydantic reads it (BaseModel)",
    "settings_customise_sources": "Pydantic calls it (BaseSettings)",
    "pids": "tests kill the processes of a hot standby and watch which of them is replaced",
    "missing_scopes": "msgspec reads and writes it (TypedLine)",
    "record_exception": "a span of OpenTelemetry has it (StepSpan)",
    "num_tickets": "the ssl module reads it (SSLContext)",
    "lint": "tests judge one tree with it; what serves judges whole sets",
}
"""Names that vulture sees no use of, and who uses them."""


NOT_YET: dict[str, str] = {
    **dict.fromkeys(
        ("ReadList", "rules_of", "written"), "of policyset.read_list, which the checks of a set are to ask"
    ),
    "through": "of sites.Derivation, which plans for obligations are to look at",
}
"""Names that came before what is to use them."""


def unused(paths: list[Path]) -> dict[str, str]:
    """Names that nothing below these paths uses, and where each stands."""
    vulture = Vulture(ignore_decorators=DECORATORS)
    vulture.scavenge([str(path) for path in paths])
    found = vulture.get_unused_code(min_confidence=LEAST_CONFIDENCE)
    return {item.name: f"{item.filename}:{item.first_lineno}" for item in found}


def test_nothing_is_there_that_nothing_uses() -> None:
    found = unused([ROOT / room for room in ("sidecar", "tools", "bench")])
    assert {name: place for name, place in found.items() if name not in {**USED, **NOT_YET}} == {}
    assert USED.keys() - found.keys() == set(), "no exception outlives its reason"


@pytest.mark.parametrize("text", ["def dead(): pass", "class dead: pass", "import os\nos.dead = 1", "dead = 1"])
def test_what_nothing_uses_would_be_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "planted.py").write_text(f"{text}\n")
    assert unused([tmp_path]).keys() == {"dead"}
    (tmp_path / "used.py").write_text("from planted import dead\n\nprint(dead)\n")
    assert unused([tmp_path]) == {}
