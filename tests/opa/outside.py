"""An OPA that somebody else runs: its file server, its process, and archives that no tool of ours made."""

import asyncio
import hashlib
import io
import json
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
from typing_extensions import override

from sidecar.policyset import bundle_writer
from sidecar.policyset.manifest import listing
from tests import parts
from tests.patience import HANG_S

DEADLINE_S = HANG_S
"""Until OPA has polled, which it does every second, and runs what that brought, on a very busy machine."""
ROOTS = ("mcp/grants/red", "mcp/teams/red")
HEAD = "package mcp.teams.red\n\n"
HONEST = (
    HEAD
    + 'grant contains {"id": "red-reads"} if {\n\tinput.access.kind == "read"\n\t"reds" in input.subject.groups\n}\n'
)


class _Quiet(SimpleHTTPRequestHandler):
    @override
    def log_message(self, *_args: object) -> None:
        pass


class _Versions(_Quiet):
    """Names the version of each file (ETag), as object stores do: OPA activates an archive once, not at every poll."""

    @override
    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = path.read_bytes()
        version = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.headers.get("If-None-Match") == version:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.end_headers()
            return
        self.send_response(HTTPStatus.OK)
        for name, value in (("ETag", version), ("Content-Type", "application/gzip"), ("Content-Length", len(content))):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def later(seconds: float) -> Iterator[None]:
    """Let the loop's clock be that much ahead."""
    loop = asyncio.get_running_loop()
    true = loop.time
    loop.time = lambda: true() + seconds  # type: ignore[method-assign]
    try:
        yield
    finally:
        del loop.time


@contextmanager
def file_server(folder: Path, *, versions: bool = False) -> Iterator[str]:
    """A plain file server in a thread; without ``versions`` (ETag) OPA activates what it serves with every poll.

    A set that is activated all the time may change between two looks at it, the more so on a busy machine.
    """
    handler = _Versions if versions else _Quiet
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A running OPA, and the folder that its bundles are served from."""

    url: str
    folder: Path

    def get(self, path: str) -> Any:
        with urlopen(f"{self.url}/{path}", timeout=HANG_S) as response:  # noqa: S310 - our own process
            return decoded(response)

    def listens(self) -> bool:
        try:
            self.get("health")
        except OSError:
            return False
        return True

    def revisions(self) -> dict[str, str]:
        """The revision of each active bundle, as provenance says it."""
        try:
            url = f"{self.url}/v1/data/mcp/main/selftest?provenance=true"
            with urlopen(url, data=b'{"input": {}}', timeout=HANG_S) as response:  # noqa: S310 - our own process
                found = decoded(response)["provenance"]["bundles"]
        except (URLError, KeyError, OSError):
            return {}
        return {name: bundle.get("revision", "") for name, bundle in found.items()}

    def serve(self, name: str, content: bytes) -> None:
        """Put an archive on the file server, whole at any moment."""
        fresh = self.folder / f"{name}.fresh"
        fresh.write_bytes(content)
        fresh.replace(self.folder / f"{name}.tar.gz")

    def switch(self, revision: str, files: Mapping[str, str], *, bundle: str = "teams/red", **manifest: Any) -> None:
        """Serve an archive made by hand, and wait until OPA runs it."""
        self.serve(bundle, by_hand(revision, files, **manifest))
        self.runs(bundle, revision)

    def runs(self, bundle: str, revision: str) -> None:
        wait_until(lambda: self.revisions().get(bundle) == revision, f"OPA to run {bundle} {revision}")


def decoded(response: Any) -> Any:
    return msgspec.json.decode(response.read())


def by_hand(revision: str, files: Mapping[str, str], **manifest: Any) -> bytes:
    """An archive of red's key holder: whatever names, whatever manifest; lists what OPA will call red's."""
    own = [(name, text.encode()) for name, text in files.items() if name.endswith(".rego") and ".." not in name]
    metadata = {"modules": listing(own)}
    said = {"revision": revision, "roots": [*ROOTS], "rego_version": 1, "metadata": metadata, **manifest}
    if said["metadata"] is None:
        del said["metadata"]
    listed = [(".manifest", json.dumps(said).encode()), *((name, text.encode()) for name, text in files.items())]
    return bundle_writer.archive(listed)


def unpacked(archive: Path | bytes) -> list[tuple[str, bytes]]:
    content = archive if isinstance(archive, bytes) else archive.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(entry.name, stream.read()) for entry in tar if (stream := tar.extractfile(entry)) is not None]


def replaced(archive: Path, name: str, change: Callable[[str], str]) -> bytes:
    """An archive with one file changed, under its old manifest."""
    files = [(path, change(text.decode()).encode() if path == name else text) for path, text in unpacked(archive)]
    assert files != unpacked(archive)
    return bundle_writer.archive(files)


def tarred(entries: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """An unpacked archive of entries of any kind."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=form) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return plain.getvalue()


@contextmanager
def running_opa(
    binary: str,
    source: str,
    served: Path,
    teams: Sequence[str],
    *flags: str,
    public_key: str = "",
    awaited: Sequence[str] = (),
    **more: Any,
) -> Iterator[Outside]:
    """OPA on the bundles of a file server, as docs/external-opa.md says; polls every second.

    With a ``public_key`` it takes signed bundles only; ``awaited`` are the bundles that must be active, all unless
    named; ``more`` is beside that in its configuration.
    """
    entry: dict[str, Any] = {"service": "files", "polling": {"min_delay_seconds": 1, "max_delay_seconds": 1}}
    if public_key:
        more["keys"] = {"merged": {"algorithm": "RS256", "key": public_key}}
        entry["signing"] = {"keyid": "merged"}
    names = ["platform", *(f"teams/{team}" for team in teams)]
    config = {
        **more,
        "services": {"files": {"url": source}},
        "bundles": {name: {**entry, "resource": f"{name}.tar.gz"} for name in names},
    }
    port = parts.free_port()
    file = served.parent / f"opa-{port}.json"
    file.write_text(json.dumps(config))
    with process(binary, port, f"--config-file={file}", *flags, cwd=served.parent) as url:
        found = Outside(url=url, folder=served)
        wait_until(lambda: all(found.revisions().get(name) for name in awaited or names), "all bundles to be active")
        yield found


@contextmanager
def process(binary: str, port: int, *flags: str, cwd: Path) -> Iterator[str]:
    """An OPA process; yields its URL at once."""
    fixed = ["--authorization=basic", "--skip-version-check", "--log-level=error"]
    command = [binary, "run", "--server", f"--addr=127.0.0.1:{port}", *fixed, *flags]
    running = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        parts.stop(running)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
