"""Where the shared store may be, and how it must be reached."""

import pytest
from pymongo.server_description import ServerDescription

from sidecar.errors import ConfigurationError
from sidecar.store.mongodb.connection import on_this_machine, require_verified_tls


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://127.0.0.1:27017/",
        "mongodb://u:p@localhost,[::1]:27018/db?replicaSet=rs",
        "mongodb://%2Ftmp%2Fmongodb.sock/",
        "mongodb://127.0.0.1/?tls=true&tlsInsecure=true",
        "mongodb://db.example/?tls=true",
        "mongodb://u:p@db.example:27017,127.0.0.1/?ssl=true&authSource=admin",
        "mongodb+srv://u:p@cluster.example/?retryWrites=true&srvServiceName=mongodb",
        "mongodb://db.example/?tls=true&tlsAllowInvalidCertificates=false",
    ],
)
def test_this_machine_needs_no_tls_and_another_one_verified_tls(uri: str) -> None:
    require_verified_tls(uri)
    assert uri.startswith("mongodb")


def test_a_replica_set_that_is_reached_in_the_clear_is_used_on_this_machine_only() -> None:
    addresses = [("127.0.0.1", 27017), ("db.example", 27017), ("10.0.0.5", 27017), ("/run/mongodb.sock", None)]
    found = on_this_machine([ServerDescription(address) for address in addresses])
    assert [one.address for one in found] == [addresses[0], addresses[3]]
    assert require_verified_tls("mongodb://127.0.0.1/?replicaSet=rs")
    assert not require_verified_tls("mongodb://127.0.0.1/?tls=true")
    assert not require_verified_tls("mongodb://db.example/?tls=true")


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("https://db.example", "begins with"),
        ("mongodb://db.example/", "tls=true"),
        ("mongodb://db.example/?tls=false", "tls=true"),
        ("mongodb://127.0.0.1,db.example/", "tls=true"),
        ("mongodb://127.0.0.1.example/", "tls=true"),
        ("mongodb://u:p@127.0.0.1@db.example/", "PyMongo"),
        ("mongodb+srv://cluster.example/?tls=false", "tls=true"),
        ("mongodb+srv://localhost/?tlsInsecure=true", "tlsInsecure"),
        ("mongodb://db.example/?tls=true&tlsInsecure=true", "tlsInsecure"),
        ("mongodb://db.example/?tls=true&tlsallowinvalidcertificates=true", "tlsAllowInvalidCertificates"),
        ("mongodb://db.example/?tls=true&tlsAllowInvalidHostnames=true", "tlsAllowInvalidHostnames"),
        ("mongodb://db.example/?tls=true&tls=false", "twice"),
        ("mongodb+srv://c.example/?a=b;tlsInsecure=true", "PyMongo"),
        ("mongodb://db.example/?tls=true;tlsInsecure=true", "tlsInsecure"),
        ("mongodb://db.example/?tls=True", "PyMongo"),
        ("mongodb://db.example/?srvx=1&tls=true&tlsInsecure=true", "tlsInsecure"),
        ("mongodb:///?tls=true", "PyMongo"),
        ("mongodb://db.example/?tls=true&tlsCAFile=/none/ca.pem", "file that cannot be read"),
    ],
)
def test_another_machine_without_verified_tls_is_refused(uri: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        require_verified_tls(uri)
    assert "example" not in refused.value.detail, "nothing of the connection string is repeated"
