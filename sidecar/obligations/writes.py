"""What may be written under a row filter: nothing that is outside of it, and nothing that would leave it.

A row that a caller plants outside of its own rows is one in those of another caller; a row that leaves the filter is
one taken away from those who saw it.
"""

from collections.abc import Iterator

from sidecar.errors import ObligationNotSupported
from sidecar.model import JsonObject, JsonValue
from sidecar.obligations.rewrite import query_filter, refused
from sidecar.obligations.row_filter import RowFilter, plain


def require_rows(rows: RowFilter, documents: JsonValue) -> None:
    """Return if every document to be inserted is certainly a row of the filter.

    Raises:
        ObligationNotSupported: one is not.
    """
    for index, document in enumerate(documents if isinstance(documents, list) else [None]):
        if not isinstance(document, dict) or not rows.admits(document):
            what = f"document {index}"
            raise refused(what, "must have each field that your rows are chosen by, as a plain value that is yours")


def require_upsert(rows: RowFilter, arguments: JsonObject) -> None:
    """Return if what an upsert inserts, and what it updates, are certainly rows of the filter.

    MongoDB makes the new document of the equalities in the query and of the update, which touches no field of the
    filter. And since a filter holds no negation, a query that holds its fields to values of its rows finds no others.

    Raises:
        ObligationNotSupported: the query does not say so much.
    """
    require_untouched(rows, arguments.get("update"))
    query = arguments.get("filter")
    values: dict[str, JsonValue] = {}
    for field in rows.fields:
        value = query.get(field) if isinstance(query, dict) else None
        if isinstance(value, dict) and value.keys() == {"$eq"}:
            value = value["$eq"]
        values[field] = value
    if any(plain(value) is None for value in values.values()) or not rows.holds_of(values):
        advice = "must say in its filter, by a plain value that is yours, each field that your rows are chosen by"
        raise refused("upsert", advice)


def update_filter(rows: RowFilter, callers: JsonValue, arguments: JsonObject) -> JsonValue:
    """Return the query of an update or a deletion that changes rows of the filter alone.

    That of an upsert stays as it is: MongoDB takes no equality of one field from two places of it (error 54).

    Raises:
        ObligationNotSupported: the query can fail, or the update touches a field of the filter.
    """
    query = query_filter(rows.query, callers)
    if "update" in arguments:
        require_untouched(rows, arguments["update"])
    if arguments.get("upsert", False) is not False:
        require_upsert(rows, arguments)
        return callers
    return query


def require_untouched(rows: RowFilter, update: JsonValue) -> None:
    """Return if an update touches no field that the filter looks at, nor anything around or inside one.

    Raises:
        ObligationNotSupported: it does, or computes its values with a pipeline.
    """
    for operator, path in _touched(update):
        parts = _parts(path)
        for field in rows.fields:
            known = _parts(field)
            shorter = min(len(parts), len(known))
            if parts[:shorter] == known[:shorter]:
                raise refused(f"{operator} of {path[:64]}", "would change which rows these are; leave it out")


def _touched(update: JsonValue) -> Iterator[tuple[str, str]]:
    if not isinstance(update, dict):
        raise refused("an update by a pipeline", "can compute any field; use update operators")
    for operator, changes in update.items():
        if not operator.startswith("$") or not isinstance(changes, dict):
            raise ObligationNotSupported("an update of another form", conditions=("filter",))
        for path, value in changes.items():
            yield operator, path
            if operator == "$rename":
                if not isinstance(value, str):
                    raise ObligationNotSupported("a new name that is no text", conditions=("filter",))
                yield operator, value


def _parts(path: str) -> list[str]:
    """Return the parts of a path without positions in arrays (``a.0.b``, ``a.$[].b``), which lead into any element."""
    return [part for part in path.split(".") if not (part.isdigit() or part.startswith("$"))]
