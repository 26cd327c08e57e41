"""Each question to the evidence takes the store of the settings where no file is named."""

import json
from io import BytesIO

import pytest
from click.testing import CliRunner

from sidecar.audit import HeldAgainst
from sidecar.authoring.replaying import ReplayVerdict, ReplayWanted, replay
from sidecar.command_line import cli
from sidecar.store.audit_reader import FileAuditReader
from sidecar.store.audit_segments import segments
from tests.authoring.test_replay_reading import Refusing

SETTINGS = """
resource_url = "https://mcp.example/mcp"
environment = "test"
policies = "policies"
[[issuers]]
issuer = "https://idp.example"
jwks_file = "keys.json"
[[servers]]
name = "demo-ro"
command = ["true"]
connection_string = "mongodb://localhost"
[audit]
store = "file:{path}"
"""


@pytest.fixture
def configured(evidence, tmp_path, monkeypatch):
    file = tmp_path / "sidecar.toml"
    file.write_text(SETTINGS.format(path=evidence))
    monkeypatch.setenv("SIDECAR_CONFIG", str(file))
    return evidence


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["audit", "query", "--json"], 0),
        (["audit", "report", "--since", "2026-11-01", "--until", "2026-11-30", "--json"], 0),
        (["audit", "tail", "--json"], 0),
        (["audit", "export"], 0),
        (["audit", "verify", "--json"], 0),
        (["trace", "--last", "--json"], 0),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, list) else str(each),
)
def test_a_command_without_a_file_asks_the_configured_store(configured, words, status):
    named = {"verify": [str(configured)]}.get(words[1], ["--file", str(configured)])
    found = CliRunner().invoke(cli, words)
    assert (found.exit_code, found.stdout) == (status, CliRunner().invoke(cli, [*words, *named]).stdout), found.stderr
    assert found.stdout


async def test_the_chain_of_a_reader_is_all_its_files(evidence):
    assert len(segments(evidence)) > 2
    [chain] = await FileAuditReader(evidence).chains()
    lines = [line async for line in chain.lines]
    assert b"".join(lines) == b"".join(each.read_bytes() for each in segments(evidence))
    [report] = await FileAuditReader(evidence).verify(HeldAgainst())
    assert (report.holds, report.records) == (True, len(lines))
    assert json.JSONDecoder().decode(lines[-1].decode())["hash"] == report.head


async def test_replay_reads_the_whole_chain_of_a_store(evidence):
    [chain] = await FileAuditReader(evidence).chains()
    found = await replay(chain, Refusing(), servers=[], titles={}, wanted=ReplayWanted(limit=1))
    assert found.proof.holds
    assert found.counts[ReplayVerdict.NOT_RECORDED]
    newest = BytesIO(evidence.read_bytes())
    one_file = await replay(newest, Refusing(), servers=[], titles={}, wanted=ReplayWanted(limit=1))
    assert not one_file.proof.holds, "the newest file alone does not begin a chain"
