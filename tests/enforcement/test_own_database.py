"""What several sidecars share is closed to calls, by the name of its database."""

import pytest

from sidecar.enforcement.views import require_open
from sidecar.errors import CommandNotDerivable
from sidecar.model import Access, AccessKind, Command, Namespace


def touching(*databases: str) -> Command:
    accesses = [
        Access(kind=AccessKind.READ, namespace=Namespace(database=name, collection="c" if name else ""), via="/name")
        for name in databases
    ]
    return Command(tool="find", accesses=tuple(accesses))


@pytest.mark.parametrize("databases", [("mcp_sidecar",), ("MCP_Sidecar",), ("sales", "mcp_sidecar")])
def test_a_call_that_touches_it_in_any_way_is_refused(databases: tuple[str, ...]) -> None:
    with pytest.raises(CommandNotDerivable, match="own_database"):
        require_open(touching(*databases), "mcp_sidecar")


@pytest.mark.parametrize(
    ("databases", "own"),
    [
        (("mcp_sidecar2",), "mcp_sidecar"),
        (("sales",), "mcp_sidecar"),
        (("",), "mcp_sidecar"),
        (("",), ""),
        (("x",), ""),
    ],
)
def test_other_databases_are_open_and_so_is_everything_where_nothing_is_shared(
    databases: tuple[str, ...], own: str
) -> None:
    command = touching(*databases)
    require_open(command, own)
    assert command == touching(*databases)
