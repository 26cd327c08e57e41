"""The command line as people and service managers meet it: exit statuses, messages of one line, and a clean end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner, Result

from sidecar.audit import record
from sidecar.audit.chain import GENESIS
from sidecar.command_line import cli
from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from sidecar.store.file import FileAuditSink
from tests import parts, policy_sets
from tests.integration.deployment import deployed, wait_until
from tests.patience import HANG_S
from tests.signer import Signer

SERVE_DEADLINE_S = HANG_S


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=folder,
        env={"PATH": f"{parts.BIN}:{os.environ['PATH']}", "PYTHONPATH": str(parts.ROOT), **environment},  # noqa: TID251 - the tests' own
        capture_output=True,
        text=True,
        timeout=SERVE_DEADLINE_S,
        check=False,
    )


# --- help -------------------------------------------------------------------------------------------------------------


def commands(command: click.Command, path: tuple[str, ...] = ()):
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


def test_the_commands_that_scripts_call_are_there():
    assert {("serve",), ("demo",), ("audit",), ("audit", "verify")} <= set(commands(cli))


@pytest.mark.parametrize("path", list(commands(cli)), ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself(path, flag):
    done = CliRunner().invoke(cli, [*path, flag], prog_name="mcp-sidecar")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: {' '.join(('mcp-sidecar', *path))}")
    assert len(done.output.splitlines()) > 4


@pytest.mark.parametrize(
    "words", [["no-such"], ["serve", "--no-such"], ["audit", "verify", "a", "b"], ["audit", "no-such"]]
)
def test_wrong_usage_is_status_2(words, tmp_path):
    done = run(*words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("words", [("decide", "--environment", "B\udcfcro"), ("policy", "who", "\udcff")])
def test_an_argument_that_is_not_utf8_is_wrong_usage_and_no_traceback(words):
    done = CliRunner().invoke(cli, words, prog_name="mcp-sidecar")
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (2, True)
    assert done.output.splitlines()[-1].startswith("Error: an argument is not UTF-8: ")
    assert not any("\ud800" <= character <= "\udfff" for character in done.output)


def test_an_argument_in_other_letters_is_taken():
    done = CliRunner().invoke(cli, ["policy", "who", "größe", "--no-such-option"], prog_name="mcp-sidecar")
    assert "UTF-8" not in done.output


def test_the_version_is_the_packages(tmp_path):
    done = run("--version", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"mcp-sidecar, version \d+\.\d+\.\d+\S*\n", done.stdout)


# --- audit verify -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def evidence(tmp_path):
    """An audit file that the sidecar's own sink wrote: three refusals."""
    file = tmp_path / "audit.jsonl"
    sink = FileAuditSink(file)
    for number in range(3):
        facts = record.Facts(request_id=f"r{number}", trace_id="a" * 32, span_id="b" * 16)
        entry = record.refusal(facts, "token_missing", None, record_id=f"i{number}", time_ns=number, duration_ms=0)
        await sink.append(entry)
    await sink.close()
    return file


def lines_of(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


def verified(folder: Path, lines: list[bytes], *words: str) -> Result:
    """The command line within this process: it starts a hundred times faster."""
    file = folder / "copy.jsonl"
    file.write_bytes(b"".join(lines))
    return CliRunner().invoke(cli, ["audit", "verify", str(file), *words], prog_name="mcp-sidecar")


def head_of(line: bytes) -> str:
    return str(json.loads(line)["hash"])  # noqa: TID251 - our own file


def test_a_whole_chain_is_status_0_and_names_its_head(evidence, tmp_path):
    lines = lines_of(evidence)
    done = verified(tmp_path, lines)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "3 records" in done.stdout
    assert head_of(lines[-1]) in done.stdout


def test_json_is_one_object_with_the_same(evidence, tmp_path):
    lines = lines_of(evidence)
    done = verified(tmp_path, lines, "--json")
    found = json.loads(done.stdout)  # noqa: TID251 - our own output
    assert (done.exit_code, found["records"], found["head"], found["fault"]) == (0, 3, head_of(lines[-1]), None)


def changes(lines: list[bytes]) -> dict[str, list[bytes]]:
    one, two, three = lines
    return {
        "changed": [one, two.replace(b"token_missing", b"token_misting"), three],
        "removed": [one, three],
        "added": [one, two, two, three],
        "moved": [two, one, three],
        "first cut off": [two, three],
        "torn": [one, two, three[: len(three) // 2]],
        "foreign line": [one, b"hello\n", two, three],
        "blank line": [one, b"\n", two, three],
    }


@pytest.mark.parametrize("change", sorted(changes([b"", b"", b""])))
def test_a_chain_that_was_touched_is_status_1_and_names_the_line(evidence, tmp_path, change):
    lines = changes(lines_of(evidence))[change]
    done = verified(tmp_path, lines)
    assert (done.exit_code, done.stderr) == (1, "")
    assert re.search(r"broken at line [123]", done.stdout)
    done = verified(tmp_path, lines, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["fault"]["line"] in {1, 2, 3}  # noqa: TID251 - our own output


def test_a_shorter_chain_is_whole_unless_a_later_head_was_kept(evidence, tmp_path):
    lines = lines_of(evidence)
    assert verified(tmp_path, lines[:2]).exit_code == 0
    assert verified(tmp_path, lines[:2], "--head", head_of(lines[1])).exit_code == 0
    assert verified(tmp_path, lines, "--head", head_of(lines[1])).exit_code == 0, "an earlier head is among them"
    assert verified(tmp_path, lines[:2], "--head", head_of(lines[2])).exit_code == 1
    assert verified(tmp_path, lines, "--head", "f" * 64).exit_code == 1


def test_an_empty_file_is_a_chain_of_nothing(tmp_path):
    assert verified(tmp_path, []).exit_code == 0
    assert verified(tmp_path, [], "--head", "f" * 64).exit_code == 1
    assert GENESIS in verified(tmp_path, []).stdout


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_is_not_there_is_wrong_usage(tmp_path, name):
    assert run("audit", "verify", str(tmp_path / name), folder=tmp_path).returncode == 2


# --- serve: configuration errors --------------------------------------------------------------------------------------


@pytest.fixture
def configuration(tmp_path):
    """A settings file that would serve, if somebody did not take one thing away."""
    Signer().write_keys(tmp_path / "jwks.json")
    (tmp_path / "uri").write_text("mongodb://user:canary-secret@127.0.0.1:1/")
    file = tmp_path / "sidecar.toml"
    file.write_text(f"""
listen = "127.0.0.1:{parts.free_port()}"
admin_listen = "127.0.0.1:{parts.free_port()}"
resource_url = "http://127.0.0.1:9/mcp"
policies = "{policy_sets.served()}"
[[issuers]]
issuer = "https://idp.example"
jwks_file = "{tmp_path / "jwks.json"}"
[opa]
binary = "{parts.installed("opa")}"
timeout_ms = 5000
[audit]
store = "file:{tmp_path / "audit.jsonl"}"
[[servers]]
name = "demo-ro"
command = ["{parts.installed("mongodb-mcp-server")}"]
connection_string_file = "{tmp_path / "uri"}"
""")
    return file


def refused_to_serve(configuration: Path, **environment: str) -> str:
    """Serve; return the one line that says why not."""
    with tempfile.TemporaryDirectory(prefix="cli-") as runtime:  # short: a Unix socket of OPA's must fit below it
        given = {"SIDECAR_CONFIG": str(configuration), "TMPDIR": runtime, **environment}
        done = run("serve", folder=configuration.parent, **given)
        assert list(Path(runtime).iterdir()) == []
    assert done.returncode == 78, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "canary-secret" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, "one line for people; the log before it is JSON"
    assert said[0].startswith("mcp-sidecar: ")
    wait_until(lambda: not left_behind(runtime), "what was started to end")
    return said[0]


def left_behind(folder: str) -> list[psutil.Process]:
    """Processes that were given this folder in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            given = (*process.cmdline(), *process.environ().values())
        except psutil.Error:
            continue
        if any(folder in text for text in given):
            found.append(process)
    return found


def server(**changes: object) -> str:
    entry = {"name": "demo-ro", "command": ["/bin/false"], "connection_string": "mongodb://127.0.0.1:1/"} | changes
    return json.dumps([{key: value for key, value in entry.items() if value is not None}])


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"SIDECAR_LISTNE": "x"}, "SIDECAR_LISTNE"),
        ({"SIDECAR_AUDIT__STORAGE": "x"}, "SIDECAR_AUDIT__STORAGE"),
        ({"SIDECAR_CONFIG": "/nonexistent.toml"}, "SIDECAR_CONFIG"),
        ({"SIDECAR_CONFIG": ""}, "resource_url"),
        ({"SIDECAR_OPA__BINARY": "/nonexistent/opa"}, "opa.binary"),
        ({"SIDECAR_OPA__BINARY": "/bin/false"}, "opa: "),
        ({"SIDECAR_OPA__URL": "http://127.0.0.1:1"}, "opa: "),
        ({"SIDECAR_OPA__URL": "http://127.0.0.1:1/v1/data"}, "opa: "),
        ({"SIDECAR_POLICIES": "/nonexistent"}, "policies: "),
        ({"SIDECAR_POLICIES": "/bin"}, "opa: "),
        ({"SIDECAR_SERVERS": server(command=["/nonexistent/server"])}, "servers.0.command"),
        ({"SIDECAR_SERVERS": server()}, "servers (demo-ro)"),
        ({"SIDECAR_SERVERS": server(connection_string="postgres://canary-secret@x")}, "servers (demo-ro)"),
        (
            {"SIDECAR_SERVERS": server(command=None, connection_string=None, url="http://127.0.0.1:1/mcp")},
            "servers (demo-ro)",
        ),
        ({"SIDECAR_SERVERS": server(command=None, connection_string=None, url="nonsense")}, "servers (demo-ro)"),
        ({"SIDECAR_ISSUERS": '[{"issuer": "https://i", "jwks_file": "/nonexistent.json"}]'}, "issuers.0.jwks_file"),
        ({"SIDECAR_ISSUERS": '[{"issuer": "https://i", "jwks_uri": "http://i/keys"}]'}, "jwks_uri"),
        ({"SIDECAR_AUDIT__STORE": "file:/nonexistent/audit.jsonl"}, "audit.store"),
        ({"SIDECAR_AUDIT__STORE": "file:/dev/null"}, "audit.store"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
    ],
)
def test_what_is_not_usable_ends_with_status_78_and_the_settings_name(configuration, environment, named):
    assert named in refused_to_serve(configuration, **environment)


@pytest.mark.parametrize("setting", ["listen", "admin_listen"])
def test_a_port_in_use_is_a_configuration_error(configuration, setting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused_to_serve(configuration, **{f"SIDECAR_{setting.upper()}": address})
    assert f" {setting}: " in said
    assert address in said


def test_an_audit_file_that_another_sidecar_holds_is_a_configuration_error(configuration, tmp_path, database):
    folder = tmp_path / "first"
    folder.mkdir()
    with deployed(folder, database) as first:
        store = f"file:{first.audit_file}"
        assert "audit.store" in refused_to_serve(configuration, SIDECAR_AUDIT__STORE=store)


# --- commands of operators --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("suspend", "user", "ann", "--reason", "x"), ("resume", "user", "ann"), ("suspended",)], ids=" ".join
)
def test_on_a_machine_without_the_settings_an_operator_reads_what_to_name(tmp_path, words):
    done = run(*words, folder=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (78, "", 1)
    assert "--control" in done.stderr
    named = run(*words, "--control", f"unix:{tmp_path}/none", folder=tmp_path)
    assert (named.returncode, len(named.stderr.splitlines())) == (1, 1)
    assert "Traceback" not in named.stderr


# --- interrupted ------------------------------------------------------------------------------------------------------

INTERRUPTED_WHILE_LOADING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["mcp-sidecar", "serve", "--help"]
signal.signal(signal.SIGINT, AT_FIRST)
from sidecar.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["click", "aiohttp", "sidecar.edge"])
@pytest.mark.parametrize(("at_first", "status"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
def test_interrupted_while_it_loads_it_says_nothing_and_what_ignores_it_goes_on(tmp_path, module, at_first, status):
    program = f"MODULE = {module!r}\n{INTERRUPTED_WHILE_LOADING.replace('AT_FIRST', f'signal.{at_first}')}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(parts.ROOT)},  # noqa: TID251 - the tests' own
        capture_output=True,
        text=True,
        timeout=SERVE_DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, "")


# --- serve: the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_asked_to_stop_it_ends_with_status_0_and_leaves_nothing(tmp_path, database, number):
    await demo_database.seed(database)
    with deployed(tmp_path, database) as deployment:
        async with deployment.plain(ANALYST) as client:
            await client.initialize()
            arguments = {"connectionId": "preconfigured", "database": "sales", "collection": "orders", "filter": {}}
            assert not (await client.call("find", arguments)).result.get("isError")
        process = deployment.process
        assert process is not None
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        process.send_signal(number)
        assert process.wait(HANG_S) == 0
        wait_until(lambda: not any(map(is_alive, children)), "the children to end")
    assert "Traceback" not in deployment.log_file.read_text()
    assert run("audit", "verify", str(deployment.audit_file), folder=tmp_path).returncode == 0


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
