"""Whether the databases behind servers answer: without credentials, and told once each way."""

import logging
import socket
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.upstream.database import Databases, without_credentials
from tests import parts

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("mongodb://u:p@a:1,b:2/db?replicaSet=rs&authSource=admin", "mongodb://a:1,b:2/?replicaSet=rs"),
        ("mongodb://u:p%40x@a/?tls=true&tlsCAFile=%2Fca.pem&appName=x", "mongodb://a/?tls=true&tlsCAFile=%2Fca.pem"),
        ("mongodb+srv://u:p@cluster.example/?retryWrites=true&w=majority", "mongodb+srv://cluster.example/"),
        ("mongodb://a?authMechanism=MONGODB-OIDC&authMechanismProperties=X:y", "mongodb://a/"),
        ("mongodb://[::1]:27017/db", "mongodb://[::1]:27017/"),
    ],
)
def test_hosts_and_how_they_are_reached_stay_and_who_speaks_goes(given_: str, kept: str) -> None:
    assert without_credentials(given_) == kept


@given(st.text(alphabet="ab@:/?&=%,.[]1"))
def test_nothing_of_a_string_that_is_refused_is_told(text: str) -> None:
    try:
        told = without_credentials(f"mongodb://u:{SECRET}@{text}")
    except ConfigurationError as error:
        told = error.detail
    assert SECRET not in told


async def silent_of(databases: Databases) -> tuple[str, ...]:
    await databases.look()
    return databases.silent


async def test_a_database_that_goes_and_comes_is_one_line_each_way(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        port = mute.getsockname()[1]
        away = f"mongodb://u:{SECRET}@127.0.0.1:{port}/?directConnection=true"
        found = Databases({"here": database, "away": away, "away-too": away})
        try:
            assert not found.silent, "nothing is said of what nobody looked at"
            assert [await silent_of(found) for _ in range(2)] == [("away", "away-too")] * 2
        finally:
            await found.close()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sidecar")]
    assert len(lines) == 1
    assert "away, away-too does not answer" in lines[0]


async def test_a_database_that_comes_back_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with parts.running_database() as uri:
        found = Databases({"one": uri})
        for outage in found._outages.values():
            outage.begins("it was not there")
        try:
            assert [await silent_of(found) for _ in range(2)] == [(), ()]
        finally:
            await found.close()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sidecar")]
    assert lines[0] == "the database of one does not answer: it was not there"
    assert [line.startswith("the database of one answers again after") for line in lines[1:]] == [True]


async def test_new_hosts_are_pinged_instead_of_the_old_ones(free_port: int, database: str) -> None:
    now = f"mongodb://127.0.0.1:{free_port}/"
    databases = Databases({"one": now}, {"one": lambda: now})
    silent: list[tuple[str, ...]] = []
    try:
        for text in (now, database, "no connection string"):
            now = text
            await databases.look()
            silent.append(databases.silent)
        assert silent == [("one",), (), ()], "what cannot be used changes nothing"
    finally:
        await databases.close()
