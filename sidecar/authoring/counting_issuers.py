"""For which issuers' callers entries of the platform's data count together, as ``platform/issuers.rego`` decides it."""

from collections.abc import Iterable, Mapping, Sequence

Listed = Sequence[str] | None
"""The ``issuers`` of an entry; None where it lists none."""


def counting(lists: Iterable[Listed], *, several: bool) -> list[str] | None:
    """Return the issuers that every list covers; None is any issuer, an empty list is none.

    Args:
        lists: those of all entries that a call needs.
        several: whether more than one issuer is trusted; then an entry that lists none counts for nobody.
    """
    common: list[str] | None = None
    for listed in lists:
        if listed is None:
            if several:
                return []
        elif "*" not in listed:
            common = sorted({*listed} if common is None else {*common} & {*listed})
    return common


def of_each(
    names: Iterable[str], listed: Mapping[str, Listed], common: list[str] | None, *, several: bool
) -> dict[str, list[str] | None]:
    """Return the names that count for one of the common issuers, each with the issuers that it counts for.

    Args:
        names: agents, or scopes.
        listed: the issuers of each; ``*`` stands for those that are not named.
        common: the issuers that are left; None is any.
        several: as for ``counting``.
    """
    left = {name: counting([common or ["*"], listed.get(name, listed.get("*"))], several=several) for name in names}
    return {name: issuers for name, issuers in left.items() if issuers != []}
