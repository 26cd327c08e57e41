"""Derivers of the 25 MongoDB tools: from checked arguments to accesses.

Every deriver starts from a draft whose arguments already have the tool's form and have been scanned. Writes that create
their collection when it is missing (``insert-many``, ``create-index``, an upsert) need no ``create`` access: MongoDB's
own privileges say the same (``insert`` and ``createIndex`` imply it), and a loader is granted ``insert``, not more.

Sources: reference, sections 1.1, 2.2 and 2.3, observed on MongoDB MCP server 3.0.4.
"""

from collections.abc import Mapping
from typing import Final

from sidecar.commands.arguments import is_number
from sidecar.commands.draft import Draft
from sidecar.commands.field_log import ROOT, FieldLog
from sidecar.commands.fields import analyse_filter
from sidecar.commands.names import check_collection, check_database
from sidecar.commands.pipeline import walk
from sidecar.commands.place import Flow, Place
from sidecar.commands.projection import project
from sidecar.commands.sorting import analyse_sort
from sidecar.commands.updates import analyse_update
from sidecar.errors import CommandNotDerivable
from sidecar.model import AccessKind, JsonObject, JsonValue, Namespace, Target, TargetKind, Trait
from sidecar.sites import SiteForm, SitePath

PRECONFIGURED: Final = "preconfigured"
"""The one connection that policy knows the deployment of. What a namespace means depends on the connection
(reference, section 2.6), and other ids may belong to other callers (section 3.1)."""

_ARGUMENTS: Final = "/arguments"
_AT_DATABASE: Final = "/arguments/database"
_AT_COLLECTION: Final = "/arguments/collection"
_AT_NAME: Final = "/name"

_DATABASE_STAGES: Final = frozenset({"$changeStream", "$currentOp", "$documents", "$listLocalSessions", "$queryStats"})
"""What ``aggregate-db`` may start with (reference, section 1.1)."""

_EMBEDDING: Final = Target(kind=TargetKind.SERVICE, id="embedding")


def list_databases(draft: Draft, _arguments: JsonObject) -> None:
    """Names and sizes of all databases."""
    draft.returned = ()
    draft.touch(AccessKind.METADATA, Namespace(), _AT_NAME)


def list_connections(draft: Draft, _arguments: JsonObject) -> None:
    """Ids of the caller's connections and of the preconfigured one."""
    draft.returned = ()
    draft.touch(AccessKind.METADATA, Namespace(), _AT_NAME)


def read_logs(draft: Draft, _arguments: JsonObject) -> None:
    """Slow-query lines quote literals of any namespace, so this is administration, not metadata."""
    draft.touch(AccessKind.ADMIN, Namespace(), _AT_NAME)


def connect(draft: Draft, _arguments: JsonObject) -> None:
    """Dials any host with any credentials (reference, section 2.6); neither may leave this room, so no target id."""
    draft.returned = ()
    draft.traits |= {Trait.CREDENTIALS_IN_ARGUMENTS, Trait.EXTERNAL_SERVICE, Trait.NETWORK_EXPOSURE}
    draft.touch_target(AccessKind.CONNECT, Target(kind=TargetKind.SERVICE), "/arguments/connectionString")


def disconnect(draft: Draft, _arguments: JsonObject) -> None:
    """Closes the connection for everybody; the server dials it again when it is needed."""
    draft.returned = ()
    draft.touch(AccessKind.CONNECT, Namespace(), "/arguments/connectionId")


def database_metadata(draft: Draft, arguments: JsonObject) -> None:
    """Facts about one database: its collections, its size."""
    draft.returned = ()
    draft.touch(AccessKind.METADATA, _database(draft, arguments), _AT_DATABASE)


def collection_metadata(draft: Draft, arguments: JsonObject) -> None:
    """Facts about one collection: its indexes, its size."""
    draft.returned = ()
    draft.touch(AccessKind.METADATA, _namespace(draft, arguments), _AT_COLLECTION)


def collection_schema(draft: Draft, arguments: JsonObject) -> None:
    """Samples documents; the keys of maps are data, so this is a read."""
    draft.fields.use(ROOT)
    draft.touch(AccessKind.READ, _namespace(draft, arguments), _AT_COLLECTION)


def find(draft: Draft, arguments: JsonObject) -> None:
    """Reads documents. Without a limit the server returns ten; with ``limit`` ≤ 0 all (reference, section 1.1)."""
    _touch(draft, AccessKind.READ, _namespace(draft, arguments), "find")
    _find(draft, arguments, _ARGUMENTS, capped=True)


def count(draft: Draft, arguments: JsonObject) -> None:
    """Counts documents; nothing of them is returned, but the count answers the filter."""
    _touch(draft, AccessKind.READ, _namespace(draft, arguments), "count")
    _count(draft, arguments, _ARGUMENTS)


def aggregate(draft: Draft, arguments: JsonObject) -> None:
    """Runs a pipeline: a read of its collection, and all that its stages touch."""
    _touch(draft, AccessKind.READ, _namespace(draft, arguments), "aggregate")
    _aggregate(draft, arguments, _ARGUMENTS, capped=True)


def aggregate_db(draft: Draft, arguments: JsonObject) -> None:
    """Runs a pipeline on a database; ``$documents`` touches no namespace and counts as ``execute`` on the database.

    Raises:
        CommandNotDerivable: the first stage is not one that the server lists for this tool.
    """
    namespace = _database(draft, arguments)
    pipeline = arguments["pipeline"]
    first = pipeline[0] if isinstance(pipeline, list) and pipeline else None
    name = next(iter(first), "") if isinstance(first, dict) else ""
    if name not in _DATABASE_STAGES:
        raise CommandNotDerivable(
            "first_stage", f"Start with one of: {', '.join(sorted(_DATABASE_STAGES))}.", "/arguments/pipeline/0"
        )
    if name == "$documents":
        draft.touch(AccessKind.EXECUTE, namespace, "/arguments/pipeline/0/$documents")
    _aggregate(draft, arguments, _ARGUMENTS, capped=True)


def explain(draft: Draft, arguments: JsonObject) -> None:
    """Needs what the explained operation needs; every verbosity but the default runs it."""
    _touch(draft, AccessKind.READ, _namespace(draft, arguments), *_wrapped_operation(arguments, "method"))
    if arguments.get("verbosity", "queryPlanner") != "queryPlanner":
        draft.traits.add(Trait.EXECUTES_PLAN)
    _wrapped(draft, arguments, "method", capped=True)


def export(draft: Draft, arguments: JsonObject) -> None:
    """Writes what the wrapped operation reads into a file that every client of the server can read (section 3.5)."""
    namespace = _namespace(draft, arguments)
    operation = _wrapped_operation(arguments, "exportTarget")
    _touch(draft, AccessKind.READ, namespace, *operation)
    _touch(draft, AccessKind.EXPORT, namespace, *operation)
    draft.traits.add(Trait.EXPORTS_FILE)
    _wrapped(draft, arguments, "exportTarget", capped=False)


def create_collection(draft: Draft, arguments: JsonObject) -> None:
    """Creates a collection, and its database if need be."""
    draft.returned = ()
    draft.touch(AccessKind.CREATE, _namespace(draft, arguments), _AT_COLLECTION)


def create_index(draft: Draft, arguments: JsonObject) -> None:
    """Creates an index; its synonyms are read from another collection, its embeddings are made elsewhere."""
    draft.returned = ()
    namespace = _namespace(draft, arguments)
    draft.touch(AccessKind.INDEX, namespace, _AT_COLLECTION)
    definition = _only(arguments["definition"])
    at = "/arguments/definition/0"
    synonyms = definition.get("synonyms", [])
    if synonyms:
        draft.returned = None  # the documents of the source show in what searches find
    for index, synonym in enumerate(synonyms if isinstance(synonyms, list) else []):
        where = f"{at}/synonyms/{index}/source/collection"
        source = check_collection(namespace.database, _member(_member(synonym, "source"), "collection"), where)
        draft.touch(AccessKind.READ, Namespace(database=namespace.database, collection=source), where)
    if _embeds(definition):
        draft.touch_target(AccessKind.EXTERNAL, _EMBEDDING, at)


def insert_many(draft: Draft, arguments: JsonObject) -> None:
    """Inserts documents; the collection is created if it is missing."""
    draft.returned = ()
    namespace = _namespace(draft, arguments)
    draft.touch(AccessKind.INSERT, namespace, _AT_COLLECTION, SiteForm.DOCUMENTS, ("documents",))


def update_many(draft: Draft, arguments: JsonObject) -> None:
    """Updates all documents of a filter, without one the whole collection; an upsert inserts when none matches."""
    draft.returned = ()
    namespace = _namespace(draft, arguments)
    draft.touch(AccessKind.UPDATE, namespace, _AT_COLLECTION, SiteForm.UPDATE_FILTER, ("filter",))
    if arguments.get("upsert") is True:
        draft.traits.add(Trait.UPSERT)
        draft.touch(AccessKind.INSERT, namespace, "/arguments/upsert", SiteForm.UPSERT, ())
    _filter_writes(draft, arguments)
    update = arguments["update"]
    if not isinstance(update, dict) or not update:
        raise CommandNotDerivable("malformed", "The update is an object of update operators.", "/arguments/update")
    analyse_update(draft.fields, update, "/arguments/update")


def delete_many(draft: Draft, arguments: JsonObject) -> None:
    """Deletes all documents of a filter, without one the whole collection."""
    draft.returned = ()
    namespace = _namespace(draft, arguments)
    draft.touch(AccessKind.DELETE, namespace, _AT_COLLECTION, SiteForm.UPDATE_FILTER, ("filter",))
    _filter_writes(draft, arguments)


def rename_collection(draft: Draft, arguments: JsonObject) -> None:
    """Takes the documents away from the old name (drop), and shows them under the new one (read, create).

    Nothing comes back, and still all of every document leaves the place where it was read: ``returned`` stays "all".
    """
    old = _namespace(draft, arguments)
    where = "/arguments/newName"
    new = Namespace(database=old.database, collection=check_collection(old.database, arguments["newName"], where))
    draft.touch(AccessKind.DROP, old, _AT_COLLECTION)
    draft.touch(AccessKind.READ, old, _AT_COLLECTION)
    draft.touch(AccessKind.CREATE, new, where)
    if arguments.get("dropTarget") is True:
        draft.traits.add(Trait.DROPS_TARGET)
        draft.touch(AccessKind.DROP, new, "/arguments/dropTarget")


def drop_collection(draft: Draft, arguments: JsonObject) -> None:
    """Drops a collection or a view."""
    draft.returned = ()
    draft.touch(AccessKind.DROP, _namespace(draft, arguments), _AT_COLLECTION)


def drop_database(draft: Draft, arguments: JsonObject) -> None:
    """Drops a whole database."""
    draft.returned = ()
    draft.touch(AccessKind.DROP, _database(draft, arguments), _AT_DATABASE)


def drop_index(draft: Draft, arguments: JsonObject) -> None:
    """Drops an index; ``*`` drops all of them (reference, section 1.1)."""
    draft.returned = ()
    draft.touch(AccessKind.INDEX, _namespace(draft, arguments), _AT_COLLECTION)
    if arguments["indexName"] == "*":
        draft.traits.add(Trait.ALL_INDEXES)


_PLACES: Final[Mapping[str, tuple[str, SiteForm]]] = {
    "find": ("filter", SiteForm.FILTER),
    "count": ("query", SiteForm.FILTER),
    "aggregate": ("pipeline", SiteForm.PIPELINE_HEAD),
}
"""Where each operation says which documents it reads."""


def _touch(draft: Draft, kind: AccessKind, namespace: Namespace, operation: str, inside: SitePath = ()) -> None:
    key, form = _PLACES[operation]
    draft.touch(kind, namespace, _AT_COLLECTION, form, (*inside, key))


def _wrapped_operation(arguments: JsonObject, key: str) -> tuple[str, SitePath]:
    """Return the operation that is explained or exported, and where its arguments stand."""
    return str(_only(arguments[key])["name"]), (key, 0, "arguments")


def _database(draft: Draft, arguments: JsonObject) -> Namespace:
    draft.database = check_database(arguments["database"], _AT_DATABASE)
    return Namespace(database=draft.database)


def _namespace(draft: Draft, arguments: JsonObject) -> Namespace:
    draft.database = check_database(arguments["database"], _AT_DATABASE)
    collection = check_collection(draft.database, arguments["collection"], _AT_COLLECTION)
    return Namespace(database=draft.database, collection=collection)


def _find(draft: Draft, arguments: JsonObject, at: str, *, capped: bool) -> None:
    query, projection, sort = arguments.get("filter"), arguments.get("projection"), arguments.get("sort")
    if isinstance(query, dict):
        analyse_filter(draft.fields, query, f"{at}/filter")
    if isinstance(projection, dict):
        flow = Flow()
        project(draft.fields, projection, f"{at}/projection", flow, is_find=True)
        draft.returned = flow.shape.returned()
    if sort is not None:
        analyse_sort(draft.fields, sort, f"{at}/sort")
    limit = arguments.get("limit")
    if is_number(limit) and limit >= 1:
        draft.limit = int(limit)
    elif limit is not None or not capped:
        draft.traits.add(Trait.UNBOUNDED)


def _count(draft: Draft, arguments: JsonObject, at: str) -> None:
    draft.returned = ()
    query = arguments.get("query")
    if isinstance(query, dict):
        analyse_filter(draft.fields, query, f"{at}/query")


def _aggregate(draft: Draft, arguments: JsonObject, at: str, *, capped: bool, inside: SitePath = ()) -> None:
    collection = arguments.get("collection", "")
    flow = Flow()
    name = collection if isinstance(collection, str) else ""
    place = Place(draft.database, name, flow, outermost=True, path=(*inside, "pipeline"))
    walk(draft, arguments["pipeline"], place, f"{at}/pipeline")
    draft.limit = flow.limit
    draft.returned = flow.shape.returned()
    if flow.limit is None and (not capped or Trait.WRITES_VIA_PIPELINE in draft.traits):
        draft.traits.add(Trait.UNBOUNDED)


def _wrapped(draft: Draft, arguments: JsonObject, key: str, *, capped: bool) -> None:
    operation = _only(arguments[key])
    inner = operation["arguments"]
    if not isinstance(inner, dict):  # the form has seen to it
        raise CommandNotDerivable("malformed", "This must be an object.", f"/arguments/{key}/0/arguments")
    wrapped = {**inner, "collection": arguments["collection"]}
    at, (name, inside) = f"/arguments/{key}/0/arguments", _wrapped_operation(arguments, key)
    if name == "aggregate":
        _aggregate(draft, wrapped, at, capped=capped, inside=inside)
    elif name == "find":
        _find(draft, wrapped, at, capped=capped)
    else:
        _count(draft, wrapped, at)


def _filter_writes(draft: Draft, arguments: JsonObject) -> None:
    query = arguments.get("filter")
    if isinstance(query, dict):
        analyse_filter(draft.fields, query, "/arguments/filter")
    if not isinstance(query, dict) or _matches_all(query):
        draft.traits.add(Trait.WHOLE_COLLECTION)


def _matches_all(query: JsonObject) -> bool:
    """Say whether a filter is empty in effect.

    False is no proof of the contrary: a condition that happens to hold for every document looks like any other.
    """
    return all(_is_trivial(key, value) for key, value in query.items())


def _is_trivial(key: str, value: JsonValue) -> bool:
    """Say whether a clause holds for every document; one that looks at no field holds for all of them or for none."""
    if key == "_id":
        return value == {"$exists": True}
    if key == "$jsonSchema":
        return value == {}
    if key in ("$and", "$or") and isinstance(value, list):
        trivial = [isinstance(clause, dict) and _matches_all(clause) for clause in value]
        return all(trivial) if key == "$and" else any(trivial)
    log = FieldLog()
    analyse_filter(log, {key: value}, "")
    return not log.used


def _only(value: JsonValue) -> JsonObject:
    """Return the one element of an array that the form has held to exactly one object."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return value[0]
    raise CommandNotDerivable("malformed", "Exactly one element is expected.", _ARGUMENTS)


def _member(value: JsonValue, key: str) -> JsonValue:
    return value.get(key) if isinstance(value, dict) else None


def _embeds(definition: JsonValue) -> bool:
    stack = [definition]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if node.get("type") == "autoEmbed":
                return True
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False
