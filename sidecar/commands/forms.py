"""The argument forms that several tools share, and the large ones.

Source: the ``inputSchema`` of MongoDB MCP server 3.0.4; stricter only where a comment says so.
"""

import re
from typing import Final

from sidecar.commands.arguments import (
    FLAG,
    OBJECT,
    TEXT,
    AnyOf,
    ArgumentForm,
    Constant,
    Documents,
    ExactObject,
    ListOf,
    MapOf,
    Number,
    TaggedUnion,
    Text,
)

CONNECTION: Final[dict[str, ArgumentForm]] = {"connectionId": TEXT}
DATABASE: Final[dict[str, ArgumentForm]] = {**CONNECTION, "database": TEXT}
COLLECTION: Final[dict[str, ArgumentForm]] = {**DATABASE, "collection": TEXT}

PIPELINE: Final = Documents(words="array of stages")
BYTES: Final = Number(least=1)
"""``responseBytesLimit``. The server takes 0 and less as "no limit of the caller's"; no call needs to say that."""

SORT: Final = MapOf(
    item=AnyOf(
        forms=(
            ExactObject(fields={"$meta": TEXT}, required=("$meta",)),
            Constant(values=(1, -1, "asc", "desc", "ascending", "descending")),
        )
    )
)
FIND: Final[dict[str, ArgumentForm]] = {"filter": OBJECT, "projection": OBJECT, "limit": Number(), "sort": SORT}

_FIND_CALL: Final = ExactObject(
    fields={"name": Text(choices=("find",)), "arguments": ExactObject(fields=FIND)}, required=("name", "arguments")
)
_COUNT_CALL: Final = ExactObject(
    fields={"name": Text(choices=("count",)), "arguments": ExactObject(fields={"query": OBJECT})},
    required=("name", "arguments"),
)
_AGGREGATE_CALL: Final = ExactObject(
    fields={
        "name": Text(choices=("aggregate",)),
        "arguments": ExactObject(fields={"pipeline": PIPELINE}, required=("pipeline",)),
    },
    required=("name", "arguments"),
)
EXPLAINED: Final = ListOf(
    fewest=1,
    most=1,
    item=TaggedUnion(tag="name", forms={"find": _FIND_CALL, "count": _COUNT_CALL, "aggregate": _AGGREGATE_CALL}),
)
"""The server runs element 0 and ignores the rest (reference, section 1.1), so there must be no rest."""

EXPORTED: Final = ListOf(
    fewest=1, most=1, item=TaggedUnion(tag="name", forms={"find": _FIND_CALL, "aggregate": _AGGREGATE_CALL})
)

_MODELS: Final = ("voyage-4", "voyage-4-large", "voyage-4-lite", "voyage-code-3")
_VECTOR_FIELD: Final = TaggedUnion(
    tag="type",
    forms={
        "filter": ExactObject(fields={"type": TEXT, "path": TEXT}, required=("path",)),
        "vector": ExactObject(
            fields={
                "type": TEXT,
                "path": TEXT,
                "numDimensions": Number(least=1, most=8192),
                "similarity": Text(choices=("cosine", "euclidean", "dotProduct")),
                "quantization": Text(choices=("none", "scalar", "binary")),
            },
            required=("path",),
        ),
        "autoEmbed": ExactObject(
            fields={"type": TEXT, "path": TEXT, "model": Text(choices=_MODELS), "modality": Text(choices=("text",))},
            required=("path", "model", "modality"),
        ),
    },
)
_SYNONYMS: Final = ExactObject(
    fields={
        "name": TEXT,
        "analyzer": TEXT,
        "source": ExactObject(fields={"collection": TEXT}, required=("collection",)),
    },
    required=("source",),
)
_SEARCH_INDEX: Final = ExactObject(
    fields={
        "type": TEXT,
        "analyzer": TEXT,
        "searchAnalyzer": TEXT,
        "analyzers": Documents(),
        "mappings": ExactObject(
            fields={
                "dynamic": AnyOf(forms=(ExactObject(fields={"typeSet": TEXT}, required=("typeSet",)), FLAG)),
                "fields": OBJECT,
            }
        ),
        "numPartitions": Text(choices=("1", "2", "4")),
        "storedSource": AnyOf(forms=(OBJECT, FLAG)),
        "synonyms": ListOf(item=_SYNONYMS),
        "typeSets": Documents(),
    },
    required=("mappings",),
)
"""The server forwards any key of a search definition; this list is closed, because one of them names a collection."""

INDEX: Final = ListOf(
    fewest=1,
    most=1,
    item=TaggedUnion(
        tag="type",
        forms={
            "classic": ExactObject(
                fields={
                    "type": TEXT,
                    "keys": MapOf(item=Constant(values=(1, -1, "2d", "2dsphere", "text", "geoHaystack", "hashed"))),
                },
                required=("keys",),
            ),
            "vectorSearch": ExactObject(
                fields={"type": TEXT, "fields": ListOf(item=_VECTOR_FIELD, fewest=1)}, required=("fields",)
            ),
            "search": _SEARCH_INDEX,
        },
    ),
)

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]+")
USER: Final = re.compile(r"[a-zA-Z0-9._-]+")
UPPER: Final = re.compile(r"[A-Z_]+")
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])"
_IPV4: Final = rf"(?:{_OCTET}\.){{3}}{_OCTET}"

OBJECT_ID: Final = Text(pattern=re.compile(r"[0-9a-fA-F]{24}"), words="24 hexadecimal digits")
NAME: Final = Text(pattern=_NAME, shortest=1, longest=64, words="a name of letters, digits, _ and -")
REGION: Final = Text(pattern=_NAME, shortest=1, longest=50, words="a region name")
PRINTABLE: Final = Text(pattern=re.compile(r"[\x20-\x7E]*"), words="printable ASCII")
PROJECT_NAME: Final = Text(
    pattern=re.compile(r"[a-zA-Z0-9 ()@&+:._',-]+"), shortest=1, longest=64, words="a project name"
)
PROVIDER: Final = Text(choices=("AWS", "GCP", "AZURE"))
SIZE: Final = Text(choices=("M10", "M20", "M30", "M40", "M50", "M60", "M80"))
COUNTED: Final[dict[str, ArgumentForm]] = {
    "limit": Number(least=1, most=500),
    "pageNum": Number(least=1),
    "includeCount": FLAG,
}
PROJECT: Final[dict[str, ArgumentForm]] = {"projectId": OBJECT_ID}
CLUSTER: Final[dict[str, ArgumentForm]] = {**PROJECT, "clusterName": NAME}
ADDRESS: Final = Text(pattern=re.compile(_IPV4), words="an IPv4 address")
BLOCK: Final = Text(pattern=re.compile(_IPV4 + r"/(?:[0-9]|[1-2][0-9]|3[0-2])"), words="an IPv4 CIDR block")
ROLE: Final = ExactObject(
    fields={
        "roleName": Text(pattern=_NAME, words="a role name"),
        "databaseName": PRINTABLE,
        "collectionName": PRINTABLE,
    },
    required=("roleName",),
)
INSTANT: Final = Text(
    pattern=re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z"), words="an RFC 3339 time"
)

_TIER: Final = Text(choices=("SP2", "SP5", "SP10", "SP30", "SP50"))
STREAM_TARGET: Final[dict[str, ArgumentForm]] = {**PROJECT, "workspaceName": NAME}
STREAM_PARTS: Final[dict[str, ArgumentForm]] = {
    "tier": _TIER,
    "autoscaling": ExactObject(fields={"enabled": FLAG, "minTier": _TIER, "maxTier": _TIER}),
    "pipeline": PIPELINE,
    "dlq": ExactObject(
        fields={"connectionName": TEXT, "db": TEXT, "coll": TEXT}, required=("connectionName", "db", "coll")
    ),
    "connectionConfig": OBJECT,
}
STREAM_BUILD: Final[dict[str, ArgumentForm]] = {
    **STREAM_TARGET,
    **STREAM_PARTS,
    "resource": Text(choices=("workspace", "connection", "processor", "privatelink")),
    "cloudProvider": PROVIDER,
    "region": REGION,
    "includeSampleData": FLAG,
    "connectionName": NAME,
    "connectionType": Text(
        choices=(
            "Kafka",
            "Cluster",
            "S3",
            "Https",
            "AWSKinesisDataStreams",
            "AWSLambda",
            "SchemaRegistry",
            "Sample",
        )
    ),
    "processorName": NAME,
    "processorTier": _TIER,
    "autoStart": FLAG,
    "privateLinkConfig": OBJECT,
}
STREAM_MANAGE: Final[dict[str, ArgumentForm]] = {
    **STREAM_TARGET,
    **STREAM_PARTS,
    "action": Text(
        choices=(
            "start-processor",
            "stop-processor",
            "modify-processor",
            "update-workspace",
            "update-connection",
            "accept-peering",
            "reject-peering",
        )
    ),
    "resourceName": NAME,
    "resumeFromCheckpoint": FLAG,
    "startAtOperationTime": TEXT,
    "newName": TEXT,
    "newRegion": TEXT,
    "newTier": _TIER,
    "peeringId": NAME,
    "requesterAccountId": TEXT,
    "requesterVpcId": TEXT,
}
STREAM_DISCOVER: Final[dict[str, ArgumentForm]] = {
    **STREAM_TARGET,
    "action": Text(
        choices=(
            "list-workspaces",
            "inspect-workspace",
            "list-connections",
            "inspect-connection",
            "list-processors",
            "inspect-processor",
            "diagnose-processor",
            "get-networking",
        )
    ),
    "resourceName": NAME,
    "responseFormat": Text(choices=("concise", "detailed")),
    "cloudProvider": TEXT,
    "region": TEXT,
    "limit": Number(least=1, most=100),
    "pageNum": Number(least=1),
}
