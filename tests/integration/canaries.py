"""What must be in no output of a deployment, and a search for it: tokens, secrets, values of filters, documents.

The canaries are those of the calls themselves: each token that the tests signed, the password of the database's
connection string, and the texts with ``canary-`` in the arguments that reached an MCP server. The outputs are the log,
the evidence in files and in MongoDB, the metrics, and everything that is exported over OTLP.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

MARK: Final = "canary-"

_SHORTEST_PART: Final = 20
_CUT: Final = 40
"""Characters of a part of a token."""

_OPTED_IN: Final = ('"full"', "question = true")
"""What settings say that have values recorded; then only tokens and secrets must not be there."""


def leaks(
    folder: Path, tokens: Iterable[str], uri: str, environment: Mapping[str, str], spans: Iterable[bytes] = ()
) -> list[str]:
    """Return which canary is in which output; empty where none is."""
    wanted = {part: "a token" for token in tokens for part in _parts(token)}
    if password := urlsplit(uri).password:
        wanted[password.encode()] = "the database's password"
    if not _opted_in(folder, environment):
        wanted |= {value.encode(): "a value" for value in _sent(folder)}
    return [
        f"{what} is in {output}: {canary[:20]!r}"
        for output, text in (*_outputs(folder, spans), *_stored(folder, uri, environment))
        for canary, what in wanted.items()
        if canary in text
    ]


def _outputs(folder: Path, spans: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    for name in ("sidecar.log", "metrics", "audit.jsonl*", "spool.jsonl*"):
        for path in folder.glob(name):
            if path.is_file():
                yield path.name, path.read_bytes()
    for number, batch in enumerate(spans):
        yield f"batch {number} of spans", batch


def _stored(folder: Path, uri: str, environment: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield what a ``mongodb:`` store holds, as it lies there; in tests it is in the database of the servers."""
    kind, _, name = environment.get("SIDECAR_AUDIT__STORE", "").partition(":")
    if kind != "mongodb":
        return
    database = tomllib.loads((folder / "sidecar.toml").read_text())["mongodb"]["database"]
    with MongoClient(uri, document_class=RawBSONDocument) as client:
        held = client[database]
        there = [(each, bytes(one.raw)) for each in (name, f"{name}.checkpoints") for one in held[each].find()]
    assert there, "the store of the evidence was not searched"
    yield from ((f"the collection {each}", raw) for each, raw in there)


def _parts(token: str) -> Iterator[bytes]:
    """Yield what a token is made of: a log that cuts it still shows a part."""
    for part in token.split("."):
        if len(part) >= _SHORTEST_PART:
            yield part[:_CUT].encode()
    yield token[-_CUT:].encode()


def _opted_in(folder: Path, environment: Mapping[str, str]) -> bool:
    file = folder / "sidecar.toml"
    said = file.read_text() if file.exists() else ""
    full = environment.get("SIDECAR_AUDIT__ARGUMENTS") == "full" or environment.get("SIDECAR_AUDIT__QUESTION") == "true"
    return full or any(word in said for word in _OPTED_IN)


def _sent(folder: Path) -> set[str]:
    """Return the planted texts in the arguments that reached an MCP server."""
    found: set[str] = set()
    for path in folder.glob("*.stdin"):
        for line in path.read_bytes().splitlines():
            if MARK.encode() in line:
                message = json.loads(line)  # noqa: TID251 - what the sidecar sent
                found |= {text for text in _texts(message.get("params")) if MARK in text}
    return found


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _texts(each)
        case dict():
            for each in value.values():
                yield from _texts(each)
        case _:
            return
