"""Set-up says what is missing before it downloads anything, and has nothing to do the second time."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.parts import ROOT

TOOLS = (
    *("bash", "cat", "chmod", "cp", "cut", "dirname", "env", "head", "ln", "mkdir", "mktemp", "rm"),
    *("sed", "sha256sum", "sort", "tail"),
)

PYTHON = """#!/usr/bin/env bash
case "$*" in *version_info*) echo 3.11 ;; *executable*) command -v python3 ;; esac
"""

UV = """#!/usr/bin/env bash
echo "uv $*" >>"$HOME/calls"
case "$1" in
  --version) echo 'uv 0.13.9' ;;
  venv) mkdir -p "${@: -1}/bin"; cp "$(command -v python3)" "${@: -1}/bin/python" ;;
  pip) case "$*" in
    *--editable*) printf '#!/usr/bin/env bash\n' >.venv/bin/mcp-sidecar; chmod +x .venv/bin/mcp-sidecar ;;
    *secantusdb.lock*) cp .parts/secantus/bin/python .parts/secantus/bin/secantusd-py ;;
  esac ;;
esac
"""

NPM = """#!/usr/bin/env bash
echo "npm $*" >>"$HOME/calls"
mkdir -p node_modules/.bin
printf '#!/usr/bin/env bash\n' >node_modules/.bin/mongodb-mcp-server
chmod +x node_modules/.bin/mongodb-mcp-server
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the scripts and locks, and a ``bin`` that is all that the machine has."""
    for name in ("scripts", "parts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "sidecar").mkdir()
    for name in ("requirements.lock", "pyproject.toml", "sidecar/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def install(machine: Path, name: str, script: str) -> None:
    path = machine / "bin" / name
    path.write_text(script)
    path.chmod(0o755)


def program(machine: Path, name: str, prints: str) -> None:
    install(machine, name, f"#!/usr/bin/env bash\nprintf '%s\\n' '{prints}'\n")


def opa(version: str, go: str = "go1.27.4") -> str:
    """What ``opa version`` prints."""
    return f"Version: {version}\nBuild Commit: \nGo Version: {go}\nPlatform: linux/amd64"


@pytest.fixture
def complete(machine: Path) -> Path:
    """The same with stand-ins for everything that is needed; ``calls`` tells which installers ran."""
    for name, script in (("python3", PYTHON), ("uv", UV), ("npm", NPM)):
        install(machine, name, script)
    program(machine, "node", "v22.0.0")
    program(machine, "opa", opa("1.22.4"))
    return machine


def calls(machine: Path) -> list[str]:
    """What the installers were asked since the last time, their versions aside."""
    log = machine / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line for line in lines if line != "uv --version"]


def setup(folder: Path, path: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "scripts/setup"), *words],
        env={"PATH": path, "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_everything_that_is_missing_is_said_at_once(machine: Path) -> None:
    done = setup(machine, str(machine / "bin"))
    assert done.returncode == 1
    assert "Python >= 3.11" in done.stderr
    assert "Node >= 20.19" in done.stderr
    assert "OPA >= 1.22.4" in done.stderr
    assert not (machine / ".venv").exists()


@pytest.mark.parametrize(
    ("name", "prints", "wanted"),
    [("python3", "3.10", "Python >= 3.11"), ("node", "v20.18.3", "Node >= 20.19"), ("go", "go1.20.14", "Go >= 1.21")],
)
def test_a_version_below_the_floor_is_missing(machine: Path, name: str, prints: str, wanted: str) -> None:
    program(machine, name, prints)
    assert wanted in setup(machine, str(machine / "bin")).stderr


@pytest.mark.parametrize(
    ("name", "prints", "wanted"),
    [
        ("python3", "3.11", "Python >= 3.11"),
        ("python3.14", "3.14", "Python >= 3.11"),
        ("node", "v20.19.0", "Node >= 20.19"),
        ("node", "v24.1.0", "Node >= 20.19"),
        ("go", "go1.21.0", "Go >= 1.21"),
        ("opa", opa("1.22.4", "go1.26.11"), "OPA >= 1.22.4"),
        ("opa", opa("1.23.0", "go1.28.0"), "OPA >= 1.22.4"),
    ],
)
def test_a_version_at_or_above_the_floor_is_not(machine: Path, name: str, prints: str, wanted: str) -> None:
    program(machine, name, prints)
    done = setup(machine, str(machine / "bin"))
    assert done.returncode == 1
    assert wanted not in done.stderr


@pytest.mark.parametrize(
    "prints",
    [
        *(opa("1.22.3"), opa("0.70.0"), opa("2.0.0"), "no version", "Version: 1.22.4"),
        # Built with a Go whose HTTP server ends by CVE-2026-97054.
        *(opa("1.22.4", "go1.26.10"), opa("1.22.4", "go1.27.0"), opa("1.22.4", "go1.27.3"), opa("1.22.4", "go1.27rc1")),
    ],
)
def test_an_opa_of_another_line_is_missing(machine: Path, prints: str) -> None:
    program(machine, "opa", prints)
    assert "OPA >= 1.22.4" in setup(machine, str(machine / "bin")).stderr


def test_the_second_run_has_nothing_to_do_and_says_nothing(complete: Path) -> None:
    first = setup(complete, str(complete / "bin"))
    assert first.returncode == 0, first.stderr
    assert calls(complete)
    second = setup(complete, str(complete / "bin"))
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert calls(complete) == []


@pytest.mark.parametrize(
    ("changed", "installer"),
    [
        ("requirements.lock", "uv pip sync"),
        ("parts/package-lock.json", "npm ci"),
        ("parts/secantusdb.lock", "uv venv"),
        ("parts/mcp-1.26.lock", "uv venv"),
        ("parts/mcp-1.30.lock", "uv venv"),
        ("parts/clients/package-lock.json", "npm ci"),
        ("parts/conformance/package-lock.json", "npm ci"),
    ],
)
def test_a_changed_lock_file_renews_only_what_is_made_from_it(complete: Path, changed: str, installer: str) -> None:
    setup(complete, str(complete / "bin"))
    calls(complete)
    with (complete / changed).open("a") as lock:
        lock.write("\n")
    assert setup(complete, str(complete / "bin")).returncode == 0
    asked = calls(complete)
    assert asked[0].startswith(installer)
    assert len({line.split()[0] for line in asked}) == 1


def test_what_was_removed_is_made_again(complete: Path) -> None:
    setup(complete, str(complete / "bin"))
    (complete / ".parts/bin/opa").unlink()
    assert setup(complete, str(complete / "bin")).returncode == 0
    assert (complete / ".parts/bin/opa").resolve() == (complete / "bin/opa").resolve()


def test_python_packages_are_installed_by_hash_and_the_project_last(complete: Path) -> None:
    setup(complete, str(complete / "bin"))
    ours = [line for line in calls(complete) if ".venv" in line and "pip" in line]
    assert [line.split()[2] for line in ours] == ["sync", "install"]
    assert "--require-hashes requirements.lock" in ours[0]
    assert "--no-deps" in ours[1]
    assert "--build-constraints parts/build.lock" in ours[1]


def test_a_database_of_ones_own_makes_the_stand_in_unnecessary_for_a_run_only(complete: Path) -> None:
    bare = str(complete / "bin")
    own = {"MDB_MCP_CONNECTION_STRING": "mongodb://127.0.0.1:27017/"}
    assert setup(complete, bare, "--run", **own).returncode == 0
    assert not (complete / ".parts/bin/secantusd-py").exists()
    assert setup(complete, bare, **own).returncode == 0
    assert (complete / ".parts/bin/secantusd-py").exists()


def test_a_part_that_fails_is_named_and_tried_again_next_time(complete: Path) -> None:
    install(complete, "npm", "#!/usr/bin/env bash\necho no such package >&2\nexit 1\n")
    done = setup(complete, str(complete / "bin"))
    assert done.returncode == 1
    assert "no such package" in done.stderr
    assert done.stderr.endswith("setup failed: npm issuer clients conformance\n")
    install(complete, "npm", NPM)
    assert setup(complete, str(complete / "bin")).returncode == 0


GO = r"""#!/usr/bin/env bash
echo "go $* with ${GOTOOLCHAIN-its own}" >>"$HOME/calls"
case "$1" in
  env) echo GOVERSION ;;
  mod) . scripts/lib.sh; printf '\t"Sum": "%s",\n\t"Dir": "/nowhere"\n' "$OPA_GO_SUM" ;;
  install)
    printf '#!/usr/bin/env bash\nprintf "Version: 1.22.4\\nGo Version: go1.26.11\\n"\n' >"$GOBIN/opa"
    chmod +x "$GOBIN/opa"
    ;;
esac
"""


@pytest.mark.parametrize(
    ("local", "used"),
    [
        *(("go1.21.0", "go1.26.11"), ("go1.26.8", "go1.26.11"), ("go1.27.1", "go1.26.11")),
        *(("go1.26.11", "local"), ("go1.27.4", "local"), ("go1.28.0", "local")),
    ],
)
def test_a_go_without_the_fix_builds_with_one_that_has_it(complete: Path, local: str, used: str) -> None:
    (complete / "bin/opa").unlink()
    install(complete, "go", GO.replace("echo GOVERSION", f"echo {local}"))
    done = setup(complete, str(complete / "bin"), GOTOOLCHAIN="local")
    assert done.returncode == 0, done.stderr
    built = [line for line in calls(complete) if line.startswith("go install")]
    assert built == [f"go install github.com/open-policy-agent/opa@v1.22.4 with {used}"]


def test_an_unknown_word_is_refused(machine: Path) -> None:
    assert "usage" in setup(machine, str(machine / "bin"), "--fast").stderr
