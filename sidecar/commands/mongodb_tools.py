"""The rows of the 25 MongoDB tools. Source: reference, section 1.1."""

from typing import Final

from sidecar.commands import forms, mongodb
from sidecar.commands.arguments import FLAG, OBJECT, TEXT, Documents, Number, Text
from sidecar.commands.tool import Tool, row
from sidecar.model import AccessKind, Trait

_K = AccessKind
_T = Trait

_PIPELINE_KINDS: Final = frozenset(
    {_K.READ, _K.METADATA, _K.INSERT, _K.UPDATE, _K.DELETE, _K.CREATE, _K.ADMIN, _K.EXTERNAL}
)
_PIPELINE_TRAITS: Final = frozenset(
    {
        _T.SERVER_SIDE_JS,
        _T.USER_ROLES,
        _T.WRITES_VIA_PIPELINE,
        _T.CROSS_DATABASE,
        _T.CHANGE_STREAM,
        _T.EXTERNAL_SERVICE,
        _T.UNBOUNDED,
        _T.AMPLIFYING,
    }
)
_QUERY_TRAITS: Final = frozenset({_T.SERVER_SIDE_JS, _T.USER_ROLES, _T.AMPLIFYING})


_DB: Final = "connectionId database"
_COLL: Final = "connectionId database collection"

_METADATA_TOOLS: Final = (
    row(
        "list-databases",
        "Lists the names and sizes of all databases.",
        mongodb.list_databases,
        forms.CONNECTION,
        required="connectionId",
        needs={_K.METADATA},
    ),
    row(
        "list-collections",
        "Lists the collections and views of a database.",
        mongodb.database_metadata,
        forms.DATABASE,
        required=_DB,
        needs={_K.METADATA},
    ),
    row(
        "db-stats",
        "Tells the size of a database.",
        mongodb.database_metadata,
        forms.DATABASE,
        required=_DB,
        needs={_K.METADATA},
    ),
    row(
        "collection-indexes",
        "Lists the indexes of a collection.",
        mongodb.collection_metadata,
        forms.COLLECTION,
        required=_COLL,
        needs={_K.METADATA},
    ),
    row(
        "collection-storage-size",
        "Tells the size of a collection.",
        mongodb.collection_metadata,
        forms.COLLECTION,
        required=_COLL,
        needs={_K.METADATA},
    ),
    row(
        "collection-schema",
        "Samples documents and tells their fields and types; a read, because the keys of maps are data.",
        mongodb.collection_schema,
        {**forms.COLLECTION, "sampleSize": Number(least=1, most=50_000), "responseBytesLimit": forms.BYTES},
        required=_COLL,
        needs={_K.READ},
    ),
    row(
        "mongodb-logs",
        "Returns the server's log, in which slow queries quote values of any namespace.",
        mongodb.read_logs,
        {
            **forms.CONNECTION,
            "type": Text(choices=("global", "startupWarnings")),
            "limit": Number(least=1, most=1024),
        },
        required="connectionId",
        needs={_K.ADMIN},
    ),
)

_READ_TOOLS: Final = (
    row(
        "find",
        "Reads documents; at most 100, except with a limit of 0 or less.",
        mongodb.find,
        {**forms.COLLECTION, **forms.FIND, "responseBytesLimit": forms.BYTES},
        required=_COLL,
        needs={_K.READ},
        traits=_QUERY_TRAITS | {_T.UNBOUNDED},
    ),
    row(
        "count",
        "Counts documents.",
        mongodb.count,
        {**forms.COLLECTION, "query": OBJECT},
        required=_COLL,
        needs={_K.READ},
        traits=_QUERY_TRAITS,
    ),
    row(
        "aggregate",
        "Runs a pipeline on a collection; its stages may read, write and send elsewhere.",
        mongodb.aggregate,
        {**forms.COLLECTION, "pipeline": forms.PIPELINE, "responseBytesLimit": forms.BYTES},
        required=f"{_COLL} pipeline",
        needs={_K.READ},
        may_need=_PIPELINE_KINDS,
        traits=_PIPELINE_TRAITS,
    ),
    row(
        "aggregate-db",
        "Runs a pipeline on a database; it starts with `$changeStream`, `$currentOp`, `$documents`, "
        "`$listLocalSessions` or `$queryStats`.",
        mongodb.aggregate_db,
        {**forms.DATABASE, "pipeline": Documents(fewest=1, words="array of stages"), "responseBytesLimit": forms.BYTES},
        required=f"{_DB} pipeline",
        needs=(),
        may_need=_PIPELINE_KINDS | {_K.EXECUTE},
        traits=_PIPELINE_TRAITS,
    ),
    row(
        "explain",
        "Explains a find, count or aggregation, and needs what that needs; every verbosity but `queryPlanner` runs it.",
        mongodb.explain,
        {
            **forms.COLLECTION,
            "method": forms.EXPLAINED,
            "verbosity": Text(choices=("queryPlanner", "queryPlannerExtended", "executionStats", "allPlansExecution")),
        },
        required=f"{_COLL} method",
        needs={_K.READ},
        may_need=_PIPELINE_KINDS,
        traits=_PIPELINE_TRAITS | {_T.EXECUTES_PLAN},
    ),
    row(
        "export",
        "Writes the result of a find or an aggregation, uncapped, to a file that is readable as a resource.",
        mongodb.export,
        {
            **forms.COLLECTION,
            "exportTitle": TEXT,
            "exportTarget": forms.EXPORTED,
            "jsonExportFormat": Text(choices=("relaxed", "canonical")),
        },
        required=f"{_COLL} exportTitle exportTarget",
        needs={_K.READ, _K.EXPORT},
        may_need=_PIPELINE_KINDS,
        traits=_PIPELINE_TRAITS | {_T.EXPORTS_FILE},
    ),
)

_WRITE_TOOLS: Final = (
    row(
        "insert-many",
        "Inserts documents; the collection is created if it is missing.",
        mongodb.insert_many,
        {**forms.COLLECTION, "documents": Documents(words="array of documents")},
        required=f"{_COLL} documents",
        needs={_K.INSERT},
        traits={_T.SERVER_SIDE_JS},
        stored={"documents"},
    ),
    row(
        "update-many",
        "Updates all documents that match, without a filter all there are; `upsert` inserts one if none matches.",
        mongodb.update_many,
        {**forms.COLLECTION, "filter": OBJECT, "update": OBJECT, "upsert": FLAG},
        required=f"{_COLL} update",
        needs={_K.UPDATE},
        may_need={_K.INSERT},
        traits=_QUERY_TRAITS | {_T.UPSERT, _T.WHOLE_COLLECTION},
    ),
    row(
        "delete-many",
        "Deletes all documents that match, without a filter all there are.",
        mongodb.delete_many,
        {**forms.COLLECTION, "filter": OBJECT},
        required=_COLL,
        needs={_K.DELETE},
        traits=_QUERY_TRAITS | {_T.WHOLE_COLLECTION},
    ),
    row(
        "create-collection",
        "Creates a collection, and its database if that is missing.",
        mongodb.create_collection,
        forms.COLLECTION,
        required=_COLL,
        needs={_K.CREATE},
    ),
    row(
        "create-index",
        "Creates an index; search synonyms are read from another collection, embeddings are made outside.",
        mongodb.create_index,
        {**forms.COLLECTION, "name": TEXT, "definition": forms.INDEX},
        required=f"{_COLL} definition",
        needs={_K.INDEX},
        may_need={_K.READ, _K.EXTERNAL},
        traits={_T.EXTERNAL_SERVICE},
    ),
    row(
        "rename-collection",
        "Takes a collection away from its name and shows it under another one of the same database.",
        mongodb.rename_collection,
        {**forms.COLLECTION, "newName": TEXT, "dropTarget": FLAG},
        required=f"{_COLL} newName",
        needs={_K.DROP, _K.READ, _K.CREATE},
        traits={_T.DROPS_TARGET},
    ),
    row(
        "drop-collection",
        "Drops a collection or view.",
        mongodb.drop_collection,
        forms.COLLECTION,
        required=_COLL,
        needs={_K.DROP},
    ),
    row(
        "drop-database",
        "Drops a database.",
        mongodb.drop_database,
        forms.DATABASE,
        required=_DB,
        needs={_K.DROP},
    ),
    row(
        "drop-index",
        "Drops an index, or with the name `*` all of them.",
        mongodb.drop_index,
        {**forms.COLLECTION, "indexName": Text(shortest=1), "type": Text(choices=("classic", "search"))},
        required=f"{_COLL} indexName type",
        needs={_K.INDEX},
        traits={_T.ALL_INDEXES},
    ),
)

_CONNECTION_TOOLS: Final = (
    row(
        "connect",
        "Connects to any host with credentials of the caller's.",
        mongodb.connect,
        {"connectionString": TEXT, "connectionName": TEXT},
        required="connectionString",
        needs={_K.CONNECT},
        traits={_T.CREDENTIALS_IN_ARGUMENTS, _T.EXTERNAL_SERVICE, _T.NETWORK_EXPOSURE},
    ),
    row(
        "disconnect",
        "Closes a connection, for everybody who shares it.",
        mongodb.disconnect,
        forms.CONNECTION,
        required="connectionId",
        needs={_K.CONNECT},
    ),
    row(
        "list-connections",
        "Lists the connections of the server.",
        mongodb.list_connections,
        {},
        needs={_K.METADATA},
    ),
)


MONGODB_TOOLS: Final[tuple[Tool, ...]] = (*_METADATA_TOOLS, *_READ_TOOLS, *_WRITE_TOOLS, *_CONNECTION_TOOLS)
