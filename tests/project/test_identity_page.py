"""The settings on the pages about identity are settings."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sidecar.identity import PRESETS
from sidecar.issuer_settings import Issuer
from tests.parts import ROOT

PAGES = [ROOT / "docs/identity.md", *sorted((ROOT / "docs/identity").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]


def issuer(block: str) -> Any:
    text = block if "[[issuers]]" in block else f'[[issuers]]\nissuer = "https://idp.example"\n{block}'
    [found] = tomllib.loads(text)["issuers"]
    return found


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1])
def test_each_block_is_an_issuer(block: str) -> None:
    assert Issuer.model_validate(issuer(block)).issuer.startswith("https://")


def test_there_is_a_page_for_each_preset() -> None:
    assert {page.stem for page in PAGES[1:]} == {preset.value for preset in PRESETS}
    named = {issuer(block)["preset"] for block in BLOCKS if "preset" in block}
    assert named == {preset.value for preset in PRESETS}


def test_the_page_is_linked() -> None:
    assert "docs/identity.md" in Path(ROOT / "README.md").read_text()
