"""The rows of the 22 Atlas, 4 Atlas Local and 2 assistant tools. Source: reference, section 1.2."""

from collections.abc import Iterable, Mapping
from typing import Final

from sidecar.commands import atlas, forms
from sidecar.commands.arguments import FLAG, TEXT, ArgumentForm, ExactObject, ListOf, Number, Text
from sidecar.commands.tool import Category, Deriver, Tool, row
from sidecar.model import AccessKind, Trait

_K = AccessKind
_T = Trait


def _atlas(
    name: str,
    effect: str,
    derive: Deriver,
    arguments: Mapping[str, ArgumentForm],
    *,
    needs: Iterable[AccessKind],
    required: str = "",
    may_need: Iterable[AccessKind] = (),
    traits: Iterable[Trait] = (),
) -> Tool:
    return row(
        name,
        effect,
        derive,
        arguments,
        needs=needs,
        required=required,
        may_need=may_need,
        traits=traits,
        category=Category.ATLAS,
    )


def _atlas_reader(
    name: str, effect: str, find: atlas.Finder, arguments: Mapping[str, ArgumentForm], required: str = ""
) -> Tool:
    return _atlas(name, effect, atlas.acts((_K.METADATA, find)), arguments, required=required, needs={_K.METADATA})


_ATLAS_READ_TOOLS: Final = (
    _atlas_reader("atlas-list-orgs", "Lists organisations.", atlas.organisation, forms.COUNTED),
    _atlas_reader(
        "atlas-list-projects",
        "Lists projects.",
        atlas.organisation,
        {"orgId": forms.OBJECT_ID, **forms.COUNTED},
    ),
    _atlas_reader("atlas-list-clusters", "Lists clusters with their connection strings.", atlas.project, forms.PROJECT),
    _atlas_reader(
        "atlas-inspect-cluster",
        "Describes a cluster, with its connection string.",
        atlas.cluster,
        forms.CLUSTER,
        "projectId clusterName",
    ),
    _atlas_reader("atlas-list-db-users", "Lists database users.", atlas.project, forms.PROJECT, "projectId"),
    _atlas_reader(
        "atlas-inspect-access-list", "Shows the network access list.", atlas.project, forms.PROJECT, "projectId"
    ),
    _atlas_reader(
        "atlas-list-alerts",
        "Lists alerts.",
        atlas.project,
        {**forms.PROJECT, "status": Text(choices=("OPEN", "TRACKING", "CLOSED")), **forms.COUNTED},
        "projectId",
    ),
    _atlas_reader(
        "atlas-get-regions",
        "Lists the regions of a provider.",
        atlas.service("atlas"),
        {"provider": forms.PROVIDER},
        "provider",
    ),
    _atlas_reader(
        "atlas-streams-discover",
        "Describes stream processing.",
        atlas.project,
        forms.STREAM_DISCOVER,
        "projectId action",
    ),
    _atlas(
        "atlas-get-performance-advisor",
        "Returns index advice and slow query logs, which quote values of any namespace of the cluster.",
        atlas.acts((_K.ADMIN, atlas.cluster)),
        {
            **forms.CLUSTER,
            "operations": ListOf(
                item=Text(choices=("suggestedIndexes", "dropIndexSuggestions", "slowQueryLogs", "schemaSuggestions"))
            ),
            "since": forms.INSTANT,
            "namespaces": ListOf(item=TEXT),
        },
        required="projectId clusterName",
        needs={_K.ADMIN},
    ),
)

_ATLAS_WRITE_TOOLS: Final = (
    _atlas(
        "atlas-connect-cluster",
        "Creates a temporary database user, adds the host's address to the access list, and connects.",
        atlas.acts((_K.CONNECT, atlas.cluster), (_K.ADMIN, atlas.project), traits={_T.NETWORK_EXPOSURE}),
        {**forms.CLUSTER, "connectionType": Text(choices=("standard", "private", "privateEndpoint"))},
        required="projectId clusterName",
        needs={_K.CONNECT, _K.ADMIN},
        traits={_T.NETWORK_EXPOSURE},
    ),
    _atlas(
        "atlas-create-db-user",
        "Creates a database user; a generated password is in the reply. Adds the host's address to the access list.",
        atlas.acts((_K.ADMIN, atlas.project), traits={_T.CREDENTIALS_IN_ARGUMENTS, _T.NETWORK_EXPOSURE}),
        {
            **forms.PROJECT,
            "username": Text(pattern=forms.USER, shortest=1, longest=100, words="a user name"),
            "password": Text(shortest=1, longest=100),
            "roles": ListOf(item=forms.ROLE),
            "clusters": ListOf(item=forms.NAME),
        },
        required="projectId username roles",
        needs={_K.ADMIN},
        traits={_T.CREDENTIALS_IN_ARGUMENTS, _T.NETWORK_EXPOSURE},
    ),
    _atlas(
        "atlas-create-access-list",
        "Opens the project's network to addresses, `0.0.0.0/0` included.",
        atlas.acts((_K.ADMIN, atlas.project), traits={_T.NETWORK_EXPOSURE}),
        {
            **forms.PROJECT,
            "ipAddresses": ListOf(item=forms.ADDRESS),
            "cidrBlocks": ListOf(item=forms.BLOCK),
            "currentIpAddress": FLAG,
            "comment": Text(pattern=forms.PRINTABLE.pattern, longest=80, words="printable ASCII"),
        },
        required="projectId",
        needs={_K.ADMIN},
        traits={_T.NETWORK_EXPOSURE},
    ),
    _atlas(
        "atlas-create-project",
        "Creates a project.",
        atlas.acts((_K.CREATE, atlas.organisation)),
        {"projectName": forms.PROJECT_NAME, "orgId": forms.OBJECT_ID},
        required="projectName orgId",
        needs={_K.CREATE},
    ),
    _atlas(
        "atlas-create-free-cluster",
        "Creates a free cluster and adds the host's address to the access list.",
        atlas.acts((_K.CREATE, atlas.cluster), (_K.ADMIN, atlas.project), traits={_T.COST, _T.NETWORK_EXPOSURE}),
        {**forms.PROJECT, "name": forms.NAME, "region": forms.REGION},
        required="projectId name",
        needs={_K.CREATE, _K.ADMIN},
        traits={_T.COST, _T.NETWORK_EXPOSURE},
    ),
    _atlas(
        "atlas-create-cluster",
        "Creates a paid cluster and adds the host's address to the access list.",
        atlas.acts((_K.CREATE, atlas.cluster), (_K.ADMIN, atlas.project), traits={_T.COST, _T.NETWORK_EXPOSURE}),
        {
            **forms.CLUSTER,
            "provider": forms.PROVIDER,
            "regions": ListOf(item=forms.REGION, fewest=1, most=3),
            "clusterType": Text(choices=("REPLICASET", "SHARDED")),
            "instanceSize": forms.SIZE,
            "computeAutoScaling": FLAG,
            "diskSizeGB": Number(least=1),
            "mongoDBVersion": Text(choices=("7.0", "8.0", "LATEST")),
            "backup": Text(choices=("OFF", "SNAPSHOT", "CONTINUOUS")),
            "terminationProtectionEnabled": FLAG,
            "encryptionAtRestProvider": Text(choices=("AWS", "AZURE", "GCP", "NONE")),
        },
        required="projectId clusterName provider regions",
        needs={_K.CREATE, _K.ADMIN},
        traits={_T.COST, _T.NETWORK_EXPOSURE},
    ),
    _atlas(
        "atlas-load-sample-dataset",
        "Writes the `sample_*` databases of a cluster; with `jobId` only tells how that goes.",
        atlas.load_sample_dataset,
        {**forms.CLUSTER, "jobId": forms.OBJECT_ID},
        required="projectId",
        needs=(),
        may_need={_K.CREATE, _K.INSERT, _K.METADATA},
    ),
    _atlas(
        "atlas-upgrade-cluster",
        "Changes the size of a cluster.",
        atlas.acts((_K.ADMIN, atlas.cluster), traits={_T.COST}),
        {
            **forms.CLUSTER,
            "targetTier": Text(choices=("FLEX", *forms.SIZE.choices)),
            "computeAutoScaling": FLAG,
            "minInstanceSize": forms.SIZE,
            "maxInstanceSize": Text(choices=(*forms.SIZE.choices, "M140", "M200")),
            "provider": Text(pattern=forms.UPPER, words="upper-case letters and _"),
            "region": forms.REGION,
        },
        required="projectId clusterName",
        needs={_K.ADMIN},
        traits={_T.COST},
    ),
    _atlas(
        "atlas-pause-resume-cluster",
        "Pauses or resumes a cluster; pausing ends its connections.",
        atlas.acts((_K.ADMIN, atlas.cluster), traits={_T.COST}),
        {**forms.CLUSTER, "action": Text(choices=("PAUSE", "RESUME"))},
        required="projectId clusterName action",
        needs={_K.ADMIN},
        traits={_T.COST},
    ),
)

_STREAM_TRAITS: Final = frozenset(
    {_T.COST, _T.EXTERNAL_SERVICE, _T.CREDENTIALS_IN_ARGUMENTS, _T.WRITES_VIA_PIPELINE, _T.NETWORK_EXPOSURE}
)
_ATLAS_STREAM_TOOLS: Final = (
    _atlas(
        "atlas-streams-build",
        "Builds stream processing, which can read and write every cluster of the project and send data anywhere.",
        atlas.change_streams,
        forms.STREAM_BUILD,
        required="projectId resource",
        needs={_K.ADMIN, _K.EXTERNAL},
        traits=_STREAM_TRAITS,
    ),
    _atlas(
        "atlas-streams-manage",
        "Starts, stops and changes stream processing, and accepts network peerings.",
        atlas.change_streams,
        forms.STREAM_MANAGE,
        required="projectId workspaceName action",
        needs={_K.ADMIN, _K.EXTERNAL},
        traits=_STREAM_TRAITS,
    ),
    _atlas(
        "atlas-streams-teardown",
        "Deletes stream processing, its connections and network links.",
        atlas.acts((_K.DROP, atlas.project), (_K.ADMIN, atlas.project)),
        {
            **forms.STREAM_TARGET,
            "resource": Text(choices=("processor", "connection", "workspace", "privatelink", "peering")),
            "resourceName": forms.NAME,
        },
        required="projectId resource",
        needs={_K.DROP, _K.ADMIN},
    ),
)

_DEPLOYMENT: Final[Mapping[str, ArgumentForm]] = {
    "deploymentName": Text(pattern=forms.PRINTABLE.pattern, shortest=1, words="printable ASCII")
}
_LOCAL_TOOLS: Final = (
    row(
        "atlas-local-list-deployments",
        "Lists the local deployments.",
        atlas.acts((_K.METADATA, atlas.deployment)),
        {},
        needs={_K.METADATA},
        category=Category.ATLAS_LOCAL,
    ),
    row(
        "atlas-local-create-deployment",
        "Runs a container on the host, of an image tag that the caller names.",
        atlas.acts((_K.CREATE, atlas.deployment), traits={_T.RUNS_CONTAINER}),
        {**_DEPLOYMENT, "loadSampleData": FLAG, "imageTag": TEXT},
        needs={_K.CREATE},
        traits={_T.RUNS_CONTAINER},
        category=Category.ATLAS_LOCAL,
    ),
    row(
        "atlas-local-delete-deployment",
        "Deletes a local deployment with its data.",
        atlas.acts((_K.DROP, atlas.deployment)),
        _DEPLOYMENT,
        required="deploymentName",
        needs={_K.DROP},
        category=Category.ATLAS_LOCAL,
    ),
    row(
        "atlas-local-connect-deployment",
        "Connects to a local deployment.",
        atlas.acts((_K.CONNECT, atlas.deployment)),
        _DEPLOYMENT,
        required="deploymentName",
        needs={_K.CONNECT},
        category=Category.ATLAS_LOCAL,
    ),
)

_ASSISTANT: Final = atlas.acts((_K.EXTERNAL, atlas.service("assistant")), traits={_T.EXTERNAL_SERVICE})
_ASSISTANT_TOOLS: Final = (
    row(
        "search-knowledge",
        "Sends the query text to MongoDB's assistant service.",
        _ASSISTANT,
        {
            "query": TEXT,
            "limit": Number(least=1, most=100),
            "dataSources": ListOf(item=ExactObject(fields={"name": TEXT, "versionLabel": TEXT}, required=("name",))),
        },
        required="query",
        needs={_K.EXTERNAL},
        traits={_T.EXTERNAL_SERVICE},
        category=Category.ASSISTANT,
    ),
    row(
        "list-knowledge-sources",
        "Asks MongoDB's assistant service for its sources.",
        _ASSISTANT,
        {},
        needs={_K.EXTERNAL},
        traits={_T.EXTERNAL_SERVICE},
        category=Category.ASSISTANT,
    ),
)


ATLAS_TOOLS: Final[tuple[Tool, ...]] = (
    *_ATLAS_READ_TOOLS,
    *_ATLAS_WRITE_TOOLS,
    *_ATLAS_STREAM_TOOLS,
    *_LOCAL_TOOLS,
    *_ASSISTANT_TOOLS,
)
