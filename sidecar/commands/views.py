"""What lies behind a view: an access to it becomes accesses to everything that it reads.

A view's name says nothing of its sources, and MongoDB reads them with the view's privilege only (reference, section
2.3). So the source that knows the definitions says what is read, and policy decides whether the view alone is enough.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sidecar.commands.amplifiers import merged
from sidecar.commands.draft import MAX_ACCESSES, Draft
from sidecar.commands.expressions import scan
from sidecar.commands.field_log import ROOT
from sidecar.commands.names import check_collection, check_database
from sidecar.commands.pipeline import walk
from sidecar.commands.place import Place
from sidecar.errors import CommandNotDerivable
from sidecar.model import Access, AccessKind, Amplifier, Command, FieldUse, JsonValue, Namespace, Target

PASSING: Final = frozenset(
    {
        AccessKind.READ,
        AccessKind.METADATA,
        AccessKind.EXPORT,
        AccessKind.INSERT,
        AccessKind.UPDATE,
        AccessKind.DELETE,
        AccessKind.INDEX,
    }
)
"""Kinds that pass through a view to what it reads (the same as in policies/platform/views.rego).

mongod refuses facts about a view and writes to one (manual, "Views": read-only), but other servers accept them; they
are asked about as the same kind of access to every source, so that a refusal does not tell strangers what is a view.
To drop a view, or to take its name, touches no source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One definition of a view, as ``listCollections`` gives it."""

    namespace: Namespace
    source: Namespace
    """``viewOn``: a collection, or another view."""
    pipeline: JsonValue
    """In Extended JSON, relaxed; a value that is not a pipeline makes the view one that cannot be derived."""


ViewDefinitions = Mapping[Namespace, Sequence[View]]
"""All definitions by name. There is more than one where deployments define the same name differently; all count."""

_Key = tuple[AccessKind, Namespace, Target | None, Namespace | None]


def databases(command: Command) -> frozenset[str]:
    """Return the databases whose views must be known before ``expand`` can say everything."""
    return frozenset(access.namespace.database for access in command.accesses if _passes(access))


def expand(command: Command, known: ViewDefinitions) -> Command:
    """Return the command with everything that it reads through views.

    What is added carries ``via_view``, the view that the caller named, and the ``via`` of the access to it. It stands
    beside an access to the same namespace by its own name and beside one through another view: policy may hold one view
    to be enough and another not to be. What no namespace describes (an outside service, the whole deployment) is added
    without ``via_view``, so it must be granted as such.

    Traits and stages of the definitions are added too: the call runs them. A stage is added where it is not there yet,
    after those of the caller, so that a policy that looks for one finds it wherever it stands.

    Sources that are views are followed to their end; one that was followed is not followed again, so what looks like a
    cycle (mongod refuses one, but two deployments together may) adds nothing and ends.

    Args:
        command: what the arguments say.
        known: the views of ``databases(command)`` at least, and in the end of ``databases(expand(command, known))``.

    Raises:
        CommandNotDerivable: a view's own pipeline cannot be read for certain, or there are more accesses than
            ``MAX_ACCESSES``.
    """
    accesses = {_key(access): access for access in command.accesses}
    traits = set(command.traits)
    stages = dict.fromkeys(command.stages)
    amplifiers = command.amplifiers
    views = [access for access in command.accesses if access.via_view is None and _passes(access)]
    views = [access for access in views if known.get(access.namespace)]
    for named in views:
        for definition in _behind(named, known):
            traits |= definition.traits
            amplifiers = merged(amplifiers, _at(definition.amplifiers, named.via))
            stages |= dict.fromkeys(definition.stages)
            for access in _through(named, definition):
                accesses.setdefault(_key(access), access)
            if len(accesses) > MAX_ACCESSES:
                text = f"The command has more than {MAX_ACCESSES} accesses."
                raise CommandNotDerivable("too_many_accesses", text, named.via)
    if not views:
        return command
    more = [name for name in stages if name not in command.stages]
    return replace(
        command,
        accesses=tuple(accesses.values()),
        traits=frozenset(traits),
        stages=(*command.stages, *more),
        fields=_seen_through(command.fields),
        amplifiers=amplifiers,
    )


def _at(amplifiers: tuple[Amplifier, ...], via: str) -> tuple[Amplifier, ...]:
    """Return the amplifiers of a definition as those of the access to it: its own pointers are not the caller's."""
    return tuple(replace(amplifier, at=via) for amplifier in amplifiers)


def _behind(named: Access, known: ViewDefinitions) -> Iterator[Command]:
    """Yield every definition that is reached through one access, as the command that it is."""
    pending = [named.namespace]
    followed = set()
    while pending:
        namespace = pending.pop(0)
        if namespace in followed:
            continue
        followed.add(namespace)
        for view in known.get(namespace, ()):
            definition = _definition(view, named.via)
            pending += [access.namespace for access in definition.accesses if _passes(access)]
            yield definition


def _through(named: Access, definition: Command) -> Iterator[Access]:
    """Yield what a definition touches as accesses of the call; a read there becomes what the call does to the view."""
    for access in definition.accesses:
        yield Access(
            kind=named.kind if access.kind is AccessKind.READ else access.kind,
            namespace=access.namespace,
            via=named.via,
            target=access.target,
            via_view=named.namespace if access.namespace.database else None,
        )


def _definition(view: View, via: str) -> Command:
    """Return what one definition reads, as if it were an aggregation of its source.

    Raises:
        CommandNotDerivable: this cannot be told. Where and why is not the caller's to know, who named only the view.
    """
    source = view.source
    draft = Draft(view.namespace.database)
    try:
        check_collection(check_database(source.database, ""), source.collection, "")
        draft.touch(AccessKind.READ, source, "")
        draft.traits |= scan(view.pipeline, "")
        walk(draft, view.pipeline, Place(source.database, source.collection), "")
    except CommandNotDerivable as error:
        text = "What is read through a view here is not known for certain."
        raise CommandNotDerivable("view_not_derivable", text, via) from error
    return draft.command("")


def _seen_through(fields: FieldUse) -> FieldUse:
    """A field of a view can be made of any field of its sources, and its own filter may look at any."""
    return FieldUse(filtered=(ROOT,), returned=() if fields.returned == () else None)


def _passes(access: Access) -> bool:
    return access.kind in PASSING and bool(access.namespace.collection)


def _key(access: Access) -> _Key:
    return (access.kind, access.namespace, access.target, access.via_view)
