"""The Helm chart: what it renders is what the sidecar takes, reaches nobody else, and holds no secret."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no stubs among the locked tools
from ruamel.yaml import YAML

from sidecar import settings
from sidecar.commands import ToolGroup
from sidecar.outgoing import connections, demand_named
from sidecar.settings import Settings
from sidecar.upstream.environment import BASE, mongodb_environment
from tests.parts import ROOT
from tools import helm_golden

Document = dict[str, Any]
SCHEMA = json.loads((helm_golden.CHART / "values.schema.json").read_text())  # noqa: TID251 - a file of ours
VALIDATOR = Draft202012Validator(SCHEMA)
EXAMPLES = [path.name.removesuffix("-values.yaml") for path in helm_golden.examples()]
OF_THE_CHART = {
    "listen", "admin_listen", "control_listen", "suspensions", "single_use", "tls_ended_by", "resource_url", "policies",
    "policies_candidate", "insecure_connections", "dpop_nonce_key_file", "issuers", "servers", "session_keys_file",
    "tls", "stdio", "control_tls",
}  # fmt: skip
"""Settings that values of their own decide, or that have no place in a pod."""


@cache
def read(path: Path) -> Document:
    found: Document = YAML(typ="safe").load(path.read_text())
    return found


def values(name: str) -> Document:
    """Example values over the defaults, as Helm puts them together."""
    return merged(read(helm_golden.CHART / "values.yaml"), read(helm_golden.CHART / f"ci/{name}-values.yaml"))


def merged(below: Document, above: Document) -> Document:
    both = {
        name: merged(below[name], above[name]) for name in below.keys() & above.keys() if is_map(below, above, name)
    }
    return {**below, **above, **both}


def is_map(below: Document, above: Document, name: str) -> bool:
    return isinstance(below[name], dict) and isinstance(above[name], dict)


@cache
def rendered(name: str) -> list[Document]:
    text = (helm_golden.GOLDEN / f"{name}.yaml").read_text()
    return [document for document in YAML(typ="safe").load_all(text) if document]


def of_kind(name: str, kind: str) -> list[Document]:
    return [document for document in rendered(name) if document["kind"] == kind]


def pods(name: str) -> Iterator[Document]:
    for document in rendered(name):
        if document["kind"] in {"StatefulSet", "Deployment"}:
            yield document["spec"]["template"]


def containers(pod: Document) -> list[Document]:
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]


def container(name: str, called: str) -> Document:
    (found,) = [each for pod in pods(name) for each in containers(pod) if each["name"] == called]
    return found


def environment(name: str, called: str = "sidecar") -> dict[str, str]:
    """What Kubernetes would give the container; a key of a Secret is its name."""
    found: dict[str, str] = {}
    for each in container(name, called)["env"]:
        source = each.get("valueFrom", {})
        given = each.get("value") or ("10.1.2.3" if "fieldRef" in source else str(source))
        found[each["name"]] = given.replace("$(POD_IP)", found.get("POD_IP", ""))
    return found


def config(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for key, value in environment(name).items():
        monkeypatch.setenv(key, value)
    return settings.load()


each_example = pytest.mark.parametrize("name", EXAMPLES)


def test_there_is_an_example_of_each_place_a_server_can_run_in_and_of_each_opa() -> None:
    all_values = [values(name) for name in EXAMPLES]
    runs = {server.get("run", "child") for each in all_values for server in each["servers"]}
    assert runs == set(SCHEMA["$defs"]["server"]["properties"]["run"]["enum"])
    assert {each["opa"]["mode"] for each in all_values} == set(
        SCHEMA["properties"]["opa"]["properties"]["mode"]["enum"]
    )


@each_example
def test_what_is_kept_is_of_this_chart(name: str) -> None:
    path = helm_golden.CHART / f"ci/{name}-values.yaml"
    assert helm_golden.golden_of(path).read_text().startswith(f"# chart: {helm_golden.digest_of(path)}\n")


@each_example
def test_the_sidecar_takes_the_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = config(name, monkeypatch)
    demand_named(found)
    assert found.resource_url == values(name)["resourceUrl"]
    assert (found.listen, found.admin_listen) == ("10.1.2.3:8080", "10.1.2.3:8081"), "not every address: a pod's own"
    assert [server.name for server in found.servers] == [server["name"] for server in values(name)["servers"]]
    asked = {server["name"]: server.get("readOnly", True) for server in values(name)["servers"]}
    assert {server.name: server.read_only for server in found.servers} == asked


def test_a_server_in_a_pod_of_its_own_is_a_connection_that_the_operator_has_named(monkeypatch) -> None:
    exposed = {one.name for one in connections(config("gateway", monkeypatch)) if one.fault}
    assert exposed == {"servers.demo-ro.url"} == set(values("gateway")["insecureConnections"])


def test_further_settings_reach_the_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    found = config("pod", monkeypatch)
    assert (found.environment, found.sessions.idle_s) == ("staging", 600)
    assert (found.servers[0].timeout_ms, found.servers[0].processes) == (30000, 2)
    assert found.issuers[0].claims.extra == ("region",)


def test_what_replicas_share_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = config("gateway", monkeypatch)
    assert found.session_keys_file
    assert found.dpop_nonce_key_file
    assert (found.suspensions, found.single_use) == ("mongodb:suspensions", "mongodb:marks")
    assert (found.sessions.ended, found.mongodb.usage) == ("mongodb:ended", "usage")


@each_example
def test_every_file_that_the_settings_name_is_mounted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (sidecar,) = (pod for pod in pods(name) if pod["spec"]["containers"][0]["name"] == "sidecar")
    volumes = {volume["name"]: volume for volume in sidecar["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container(name, "sidecar")["volumeMounts"]}
    there = {
        f"{where}/{item['path']}"
        for where, volume in mounts.items()
        for source in volumes.get(volume, {}).get("projected", {}).get("sources", [])
        for item in source["secret"]["items"]
    }
    named = set(re.findall(r"/run/secrets/[\w./-]+", json.dumps(environment(name))))
    assert named == there
    assert set(mounts) >= {"/tmp", "/var/lib/sidecar", "/run/control"}  # noqa: S108 - of the container


@each_example
def test_no_secret_is_rendered(name: str) -> None:
    """Secrets are named by their Secret and key: neither a document nor a value holds one."""
    assert of_kind(name, "Secret") == []
    named = {each["name"]: each for pod in pods(name) for one in containers(pod) for each in one.get("env", [])}
    for variable in ("MDB_MCP_CONNECTION_STRING", "MDB_MCP_HTTP_HEADERS"):
        assert "value" not in named.get(variable, {})
    assert "mongodb://" not in (helm_golden.GOLDEN / f"{name}.yaml").read_text()


HARDENED = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


@each_example
def test_a_container_has_no_rights_to_spare_and_a_bound(name: str) -> None:
    specs = [pod["spec"] for pod in pods(name)]
    of_all = [spec["securityContext"] for spec in specs]
    assert all(each["runAsNonRoot"] is True and each["runAsUser"] == 10001 for each in of_all)
    assert all(each["seccompProfile"] == {"type": "RuntimeDefault"} for each in of_all)
    assert all(spec["automountServiceAccountToken"] is False for spec in specs)
    assert not any({"hostNetwork", "hostPID", "hostIPC"} & spec.keys() for spec in specs)
    assert not any("hostPath" in volume for spec in specs for volume in spec["volumes"])
    found = [each for pod in pods(name) for each in containers(pod)]
    assert [each["name"] for each in found if each["securityContext"] != HARDENED] == []
    assert [each["name"] for each in found if not each["resources"].get("limits", {}).get("memory")] == []


@each_example
def test_probes_ask_what_the_sidecar_answers(name: str) -> None:
    sidecar = container(name, "sidecar")
    served = set(re.findall(r'add_get\("(/\w+)"', (ROOT / "sidecar/edge/admin.py").read_text()))
    asked = {sidecar[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {"/livez", "/readyz"} <= served
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/livez", "not ready is no reason to end the process"
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    assert ports == {"mcp": 8080, "admin": 8081}


# --- who reaches whom -------------------------------------------------------------------------------------------------


def selected(selector: Document, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items())


def policies_of(name: str, labels: dict[str, str]) -> list[Document]:
    return [each for each in of_kind(name, "NetworkPolicy") if selected(each["spec"]["podSelector"], labels)]


@each_example
def test_only_the_balancer_reaches_the_sidecar(name: str) -> None:
    (pod,) = (each for each in pods(name) if each["spec"]["containers"][0]["name"] == "sidecar")
    (policy,) = policies_of(name, pod["metadata"]["labels"])
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    network = values(name)["network"]
    admitted = {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"]}
    assert admitted == {8080: network["balancer"], **({8081: network["monitoring"]} if network["monitoring"] else {})}
    assert all(rule["to"] and rule["ports"] for rule in policy["spec"]["egress"]), "nothing is open to everybody"


def test_only_the_sidecar_reaches_a_server_that_reaches_only_its_database() -> None:
    sidecar, server = (
        next(pod for pod in pods("gateway") if pod["spec"]["containers"][0]["name"] == kind)
        for kind in ("sidecar", "server")
    )
    (policy,) = policies_of("gateway", server["metadata"]["labels"])
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    ((peer,),) = (rule["from"] for rule in policy["spec"]["ingress"])
    assert set(peer) == {"podSelector"}, "of this namespace"
    assert selected(peer["podSelector"], sidecar["metadata"]["labels"])
    assert not selected(peer["podSelector"], server["metadata"]["labels"])
    network = values("gateway")["network"]
    dns, *database = policy["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert database == network["databases"]


def test_only_this_release_reaches_the_database_in_the_cluster() -> None:
    wanted = values("gateway")["network"]["databasePods"]
    (policy,) = policies_of("gateway", wanted["labels"])
    assert policy["metadata"]["namespace"] == wanted["namespace"]
    ((rule,),) = (policy["spec"]["ingress"],)
    ours, themselves = rule["from"]
    assert ours["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "mcp"}
    assert all(selected(ours["podSelector"], pod["metadata"]["labels"]) for pod in pods("gateway"))
    assert not selected(ours["podSelector"], {"app.kubernetes.io/name": "mcp-sidecar"}), "another release"
    assert themselves == {"podSelector": {"matchLabels": wanted["labels"]}}


@each_example
def test_of_the_replicas_one_at_a_time_may_go(name: str) -> None:
    (budget,) = of_kind(name, "PodDisruptionBudget")
    (replicas,) = of_kind(name, "StatefulSet")
    assert budget["spec"]["maxUnavailable"] == 1 < replicas["spec"]["replicas"]
    assert selected(budget["spec"]["selector"], replicas["spec"]["template"]["metadata"]["labels"])
    assert [claim["metadata"]["name"] for claim in replicas["spec"]["volumeClaimTemplates"]] == ["evidence"]


def test_prometheus_finds_the_metrics_and_nothing_behind_the_balancer() -> None:
    (monitor,) = of_kind("gateway", "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    found = [
        each
        for each in of_kind("gateway", "Service")
        if selected(monitor["spec"]["selector"], each["metadata"]["labels"])
    ]
    assert [each["metadata"]["name"] for each in found] == ["mcp-admin"]
    assert [port["name"] for port in found[0]["spec"]["ports"]] == [endpoint["port"]]
    assert endpoint["path"] == "/metrics"


# --- servers with a port ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "called"), [("beside", "server-demo-ro"), ("beside", "server-demo-rw"), ("gateway", "server")]
)
def test_a_server_with_a_port_has_the_settings_of_a_child(name: str, called: str) -> None:
    given = environment(name, called)
    child = {**BASE, **mongodb_environment("mongodb://db/", read_only=called != "server-demo-rw")}
    differs = {"PATH", "LANG", "MDB_MCP_TRANSPORT", "MDB_MCP_CONNECTION_STRING", "MDB_MCP_PREVIEW_FEATURES"}
    off = set(given.pop("MDB_MCP_DISABLED_TOOLS").split(","))
    assert off == set(child.pop("MDB_MCP_DISABLED_TOOLS").split(",")) == {group.value for group in ToolGroup}
    assert {key: given.get(key) for key in child.keys() - differs} == {
        key: child[key] for key in child.keys() - differs
    }
    more = given.keys() - child.keys()
    beyond_the_pod = {"MDB_MCP_DANGEROUS_HOST_BINDING"} if given["MDB_MCP_HTTP_HOST"] != "127.0.0.1" else set()
    assert more - beyond_the_pod == {
        "HOME", "MDB_MCP_HTTP_HOST", "MDB_MCP_HTTP_PORT", "MDB_MCP_HTTP_BODY_LIMIT", "MDB_MCP_HTTP_HEADERS"
    }  # fmt: skip
    assert (name == "gateway") is bool(beyond_the_pod)


def expected_url(name: str, server: Document) -> str:
    match server.get("run", "child"):
        case "container":
            port = environment(name, f"server-{server['name']}")["MDB_MCP_HTTP_PORT"]
            return f"http://127.0.0.1:{port}/mcp"
        case "deployment":
            (found,) = [
                service["metadata"]["name"]
                for service in of_kind(name, "Service")
                if service["spec"]["selector"].get("mcp-sidecar/server") == server["name"]
            ]
            return f"http://{found}:3000/mcp"
        case _:
            return str(server.get("url", ""))


@each_example
def test_a_url_leads_to_the_server_of_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = config(name, monkeypatch).servers
    assert {one.name: one.url for one in found} == {
        each["name"]: expected_url(name, each) for each in values(name)["servers"]
    }
    assert all(one.url or one.command == ("mongodb-mcp-server",) for one in found)


# --- values that are refused ------------------------------------------------------------------------------------------

SERVER = {"name": "a", "connectionString": {"secret": "s", "key": "k"}}
HEADERS = {"secret": "s", "key": "k", "jsonKey": "j"}
REFUSED: dict[str, Document] = {
    "a misspelt value": {"replica": 3},
    "a setting that there is not": {"settings": {"surroundings": "staging"}},
    "a setting that the chart decides": {"settings": {"listen": "0.0.0.0:1"}},
    "where evidence goes": {"settings": {"audit": {"store": "file:/tmp/x"}}},
    "a secret in place of its name": {"servers": [{**SERVER, "connectionString": "mongodb://u:p@db/"}]},
    "a secret among the settings of a server": {"servers": [{**SERVER, "settings": {"connection_string": "x"}}]},
    "no server": {"servers": []},
    "a server without its user": {"servers": [{"name": "a"}]},
    "a child with a port": {"servers": [{**SERVER, "headers": HEADERS}]},
    "a server that answers everybody": {"servers": [{**SERVER, "run": "container"}]},
    "a server that cannot read its secret": {
        "servers": [{**SERVER, "run": "deployment", "headers": {"secret": "s", "key": "k"}}]
    },
    "a server elsewhere without a place": {"servers": [{"name": "a", "run": "elsewhere"}]},
    "a name that is no label": {"servers": [{**SERVER, "name": "A_b"}]},
    "clients without TLS": {"resourceUrl": "http://mcp.corp.example/mcp"},
    "no issuer": {"issuers": []},
    "policies whose files are links": {"opa": {"mode": "managed", "policies": {"configMap": {"name": "x"}}}},
    "policies from two places": {"opa": {"mode": "managed", "policies": {"csi": {"driver": "x"}}}},
    "no bundles": {"opa": {"mode": "bundles", "config": {}}},
    "an opa elsewhere without a place": {"opa": {"mode": "external", "url": ""}},
    "everybody as the balancer": {"network": {"balancer": []}},
    "a balancer that is anybody": {"network": {"balancer": [{}]}},
    "databases that are everywhere": {"network": {"databases": []}},
    "a rule without a port": {"network": {"databases": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
    "client certificates without TLS": {"tls": {"clientCertificates": "required"}},
}


@each_example
def test_the_example_values_are_taken(name: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(values(name))] == []


@pytest.mark.parametrize("what", REFUSED)
def test_values_that_cannot_be_meant_are_refused(what: str) -> None:
    assert list(VALIDATOR.iter_errors(merged(values("pod"), REFUSED[what])))


def test_the_schema_knows_every_value_and_every_setting() -> None:
    defaults = read(helm_golden.CHART / "values.yaml")
    assert set(SCHEMA["properties"]) - {"global"} == set(defaults)
    for group, given in defaults.items():
        if "properties" in (known := SCHEMA["properties"][group]):
            assert set(known["properties"]) == set(given) or group == "settings"
    further = set(SCHEMA["properties"]["settings"]["properties"])
    assert further | OF_THE_CHART == set(Settings.model_fields)
    assert not further & OF_THE_CHART


def test_the_chart_has_the_version_and_the_opa_of_the_project() -> None:
    chart = read(helm_golden.CHART / "Chart.yaml")
    said = re.search(r'__version__ = "(.+)"', (ROOT / "sidecar/__init__.py").read_text())
    pinned = re.search(r"^readonly OPA_VERSION=(.+)$", (ROOT / "scripts/lib.sh").read_text(), re.MULTILINE)
    assert said
    assert pinned
    assert chart["appVersion"] == said[1]
    assert read(helm_golden.CHART / "values.yaml")["opa"]["image"] == f"openpolicyagent/opa:{pinned[1]}-static"


# --- with the real programs -------------------------------------------------------------------------------------------


@pytest.mark.needs("helm")
@each_example
def test_helm_renders_what_is_kept(name: str) -> None:
    path = helm_golden.CHART / f"ci/{name}-values.yaml"
    assert helm_golden.golden_of(path).read_text().partition("\n")[2] == helm_golden.rendered(path)


@pytest.mark.nightly
@pytest.mark.needs("helm")
def test_helm_finds_nothing_and_refuses_what_the_schema_refuses(tmp_path: Path) -> None:
    for path in helm_golden.examples():
        command = ["helm", "lint", "--strict", "--quiet", str(helm_golden.CHART), "--values", str(path)]
        done = subprocess.run(
            [*command, "--kube-version", helm_golden.KUBERNETES], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
    example = helm_golden.CHART / "ci/pod-values.yaml"
    for what, changed in REFUSED.items():
        (tmp_path / "values.json").write_text(json.dumps(changed))
        with pytest.raises(subprocess.CalledProcessError) as refused:
            helm_golden.rendered(example, "--values", str(tmp_path / "values.json"))
        assert "values don't meet the specifications" in refused.value.stderr, what


@pytest.mark.nightly
@pytest.mark.needs("helm")
def test_a_server_whose_connection_is_not_named_is_not_rendered() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        helm_golden.rendered(helm_golden.CHART / "ci/gateway-values.yaml", "--set", "insecureConnections=null")
    assert "servers.demo-ro.url" in refused.value.stderr


@pytest.mark.nightly
@pytest.mark.needs("kubernetes-validate")
@each_example
def test_kubernetes_takes_what_is_rendered(name: str) -> None:
    """But for the ServiceMonitor, whose kind is Prometheus Operator's."""
    program = shutil.which("kubernetes-validate")
    assert program
    version = helm_golden.KUBERNETES.rpartition(".")[0]
    command = [program, "--strict", "-k", version, str(helm_golden.GOLDEN / f"{name}.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    passed = (done.stdout + done.stderr).count(" passed for resource ")
    assert passed == len(rendered(name)) - len(of_kind(name, "ServiceMonitor"))
