"""How a bench shows what it found."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table


def show(rows: Sequence[Mapping[str, object]], title: str, *, as_json: bool) -> None:
    """Print rows that have the same columns, as a table or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=160).print(table)
