"""Indexes of a collection of which a caller sees a part: what is shown of them; no other form is understood."""

import json
import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.commands import derive
from sidecar.errors import ObligationNotSupported, UpstreamProtocolViolation
from sidecar.model import AccessVerdict, Decision, JsonObject, ToolCall
from sidecar.obligations import plan
from sidecar.obligations.indexes import MAX_INDEXES, WITHHELD_NAME, IndexView
from sidecar.obligations.masks import read_mask
from sidecar.sites import Derivation, Site, SiteForm
from tests.obligations.test_names_in_results import OTHER, wrapped
from tests.parts import ROOT
from tests.patience import HANG_S

ON: JsonObject = {"connectionId": "preconfigured", "database": "shop", "collection": "orders"}
CALL = ToolCall(name="collection-indexes", arguments=ON)
ID: dict[str, Any] = {"name": "_id_", "key": {"_id": 1}}
SEARCH: dict[str, Any] = {
    "name": "default",
    "type": "search",
    "status": "READY",
    "queryable": True,
    "latestDefinition": {"mappings": {"dynamic": False, "fields": {"ssn": {"type": "string"}}}},
}


def index(name: str = "", /, **key: Any) -> dict[str, Any]:
    return {"name": name or "_".join(f"{path}_{value}" for path, value in key.items()), "key": key}


def answer(*classic: Any, search: Any = ()) -> dict[str, Any]:
    """What ``collectionIndexes.js`` of 3.0.4 says; the test of the real one holds this to it."""
    texts = [f"Found {len(classic)} classic indexes in the requested collection:", wrapped(text(classic))]
    if search:
        texts += [f"Found {len(search)} search and vector search indexes in the requested collection:"]
        texts += [wrapped(text(search), OTHER)]
    return {
        "content": [{"type": "text", "text": one} for one in texts],
        "structuredContent": {
            "classicIndexes": [*classic],
            "searchIndexes": [*search],
            "classicIndexesCount": len(classic),
            "searchIndexesCount": len(search),
        },
    }


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def seen(result: dict[str, Any], *mask: Any) -> dict[str, Any]:
    view = IndexView(mask=read_mask(mask) if mask else None)
    found: dict[str, Any] = msgspec.json.decode(view.shown(msgspec.json.encode(result)))
    return found


def kept(result: dict[str, Any], *mask: Any) -> list[Any]:
    """The entries that are shown, which all forms of the answer agree about."""
    found = seen(result, *mask)
    entries: list[Any] = found["structuredContent"]["classicIndexes"]
    assert found == answer(*entries)
    return entries


REAL = """
import {{ CollectionIndexesTool }} from "{module}";
const {{ classic, search }} = JSON.parse(process.argv[1]);
const tool = Object.create(CollectionIndexesTool.prototype);
tool.resolveConnection = async () => ({{ getIndexes: async () => classic, getSearchIndexes: async () => search }});
tool.isSearchSupported = async () => true;
console.log(JSON.stringify(await tool.execute({{ connectionId: "c", database: "d", collection: "c" }})));
"""


@pytest.mark.real
@pytest.mark.parametrize("search", [[], [SEARCH]], ids=["plain", "search"])
def test_what_the_real_server_says_is_understood(search: list[Any]) -> None:
    """Its own code, on what a database could tell it: a partial, a text, a wildcard, a hashed and a special index."""
    told: list[Any] = [
        {"v": 2, **ID},
        {"v": 2, **index(region=1, placed=-1), "partialFilterExpression": {"ssn": {"$gt": "5"}}, "unique": True},
        {"v": 2, **index(**{"customer.ssn": 1}), "expireAfterSeconds": 3},
        {"v": 2, **index("note_text", _fts="text", _ftsx=1), "weights": {"note": 1}, "default_language": "none"},
        {"v": 2, **index(**{"$**": 1}), "wildcardProjection": {"ssn": 0}},
        {"v": 2, **index(place="2dsphere"), "2dsphereIndexVersion": 3},
        {"v": 2, **index("of the ssn", number="hashed")},
    ]
    module = (
        ROOT / ".parts/node_modules/@mongodb-js/mcp-tools-mongodb/dist/tools/metadata/collectionIndexes.js"
    ).as_uri()
    command = [
        "node",
        "--input-type=module",
        "-e",
        REAL.format(module=module),
        text({"classic": told, "search": search}),
    ]
    said = subprocess.run(command, capture_output=True, check=True, timeout=HANG_S, cwd=ROOT).stdout
    view = IndexView(mask=read_mask(["customer.ssn"]))
    shown: dict[str, Any] = msgspec.json.decode(view.shown(said.strip()))
    entries = [ID, index(region=1, placed=-1), index(place="2dsphere"), index(WITHHELD_NAME, number="hashed")]
    assert shown["structuredContent"] == answer(*entries)["structuredContent"]
    assert shown["content"][0]["text"].startswith("Found 4 classic")
    assert text(entries) in shown["content"][1]["text"]
    assert "ssn" not in json.dumps(shown)
    assert "default" not in json.dumps(shown)


def test_under_a_row_filter_keys_are_shown_and_names_that_somebody_chose_are_not():
    entries = [ID, index(region=1, placed=-1), index("vip_acme_only", customer=1), index("t", _fts="text", _ftsx=1)]
    shown = [
        ID,
        index(region=1, placed=-1),
        index(WITHHELD_NAME, customer=1),
        index(WITHHELD_NAME, _fts="text", _ftsx=1),
    ]
    assert kept(answer(*entries)) == shown
    assert kept(answer(*entries, search=[SEARCH])) == shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        *[
            (path, False)
            for path in ("customer.ssn", "customer", "customer.ssn.last", "customer.0.ssn", "customer.ssn.0")
        ],
        *[(path, False) for path in ("customer.$**", "$**", "customer.ssn.$**", "_fts", "_fts.x")],
        *[
            (path, True)
            for path in ("customer.name", "customers", "ssn", "customer.ssn2", "customer.ssnx.y", "x.customer")
        ],
        *[(path, True) for path in ("Customer.ssn", "customer.SSN", "other.$**", "customer name", "customer.na.me")],
    ],
)
def test_under_a_mask_no_index_that_has_to_do_with_a_masked_field_is_shown(path, shown):
    for form in ("customer.ssn", {"field": "customer.ssn", "as": "last4"}):
        for key in ({path: 1}, {"region": 1, path: -1}, {path: "hashed", "region": 1}):
            assert bool(kept(answer(index(**key)), form)) is shown


def test_the_index_of_a_masked_id_is_not_shown():
    assert kept(answer(ID, index(a=1)), "_id") == [index(a=1)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *[(name, True) for name in ("a_1_b_-1",)],
        *[
            (name, False)
            for name in ("a_1", "a_1_b_1", "A_1_b_-1", "a_1_b_-1 ", "_id_", "ssn_1", "a_1_b_-1_where_ssn_is_5")
        ],
    ],
)
def test_a_name_is_shown_where_mongodb_made_it_of_the_key(name, shown):
    [entry] = kept(answer(index(name, a=1, b=-1)), "ssn")
    assert entry["name"] == (name if shown else WITHHELD_NAME)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "a.b", "b", "ssn", "ssn.x", "$**"]), st.sampled_from([1, -1, "hashed"]), min_size=1
        ),
        max_size=5,
    ),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
)
def test_what_hidden_indexes_are_called_and_how_many_there_are_changes_nothing(keys, name):
    visible = [index(**key) for key in keys if not any(path.split(".")[0] in ("ssn", "$**") for path in key)]
    everything = [index(name, **key) if index(**key) not in visible else index(**key) for key in keys]
    assert seen(answer(*everything), "ssn") == seen(answer(*visible), "ssn")


def changed(**changes: Any) -> dict[str, Any]:
    found = answer(ID, index(a=1), search=[SEARCH])
    found["structuredContent"] |= changes
    return found


def entry_text(entries: Any) -> dict[str, Any]:
    found = answer(ID)
    found["content"][1]["text"] = wrapped(text(entries))
    return found


ALTERATIONS: dict[str, Any] = {
    "another member": changed(sizes=[1]),
    "another count": changed(classicIndexesCount=3),
    "a count that is true": {
        **answer(ID),
        "structuredContent": {**answer(ID)["structuredContent"], "classicIndexesCount": True},
    },
    "another count of search": changed(searchIndexesCount=0),
    "no list": changed(classicIndexes={"a": 1}),
    "text and content differ": entry_text([index(ssn=1)]),
    "text has more": entry_text([ID, index(ssn=1)]),
    "another number in the text": entry_text([{"name": "_id_", "key": {"_id": -1}}]),
    "text and content of search differ": changed(searchIndexes=[{**SEARCH, "name": "x"}]),
    "an entry with more": answer({**ID, "partialFilterExpression": {"ssn": 5}}),
    "an entry without a key": answer({"name": "a"}),
    "an empty key": answer({"name": "a", "key": {}}),
    "a key that is a list": answer({"name": "a", "key": ["ssn"]}),
    "an empty field": answer({"name": "a", "key": {"": 1}}),
    "a field with an object": answer({"name": "a", "key": {"a": {"ssn": 1}}}),
    "a field that is true": answer({"name": "a", "key": {"a": True}}),
    "a field with a fraction": answer({"name": "a", "key": {"a": 1.5}}),
    "another kind": answer({"name": "a", "key": {"a": "of ssn"}}),
    "no name": answer({"name": "", "key": {"a": 1}}),
    "a name that is a number": answer({"name": 1, "key": {"a": 1}}),
    "half a character": answer({"name": "\ud800", "key": {"a": 1}}),
    "another entry of search": answer(ID, search=[{**SEARCH, "numDocs": 5}]),
    "too many": answer(*[index(**{f"a{number}": 1}) for number in range(MAX_INDEXES + 1)]),
    "an error with a result": {**answer(ID), "isError": True},
    "more beside content": {**answer(ID), "indexes": []},
    "no structured content": {"content": answer(ID)["content"]},
    "a third text": {**answer(ID), "content": [*answer(ID)["content"], {"type": "text", "text": "ssn_1"}]},
    "texts of search without any": {**answer(ID), "content": answer(ID, search=[SEARCH])["content"]},
    "another sentence": {
        **answer(ID),
        "content": [{"type": "text", "text": "Found 1 classic indexes: ssn_1"}, answer(ID)["content"][1]],
    },
}


@pytest.mark.parametrize("altered", ALTERATIONS.values(), ids=ALTERATIONS)
def test_any_other_form_is_withheld_and_not_quoted(altered: Any) -> None:
    body = json.dumps(altered).encode()
    with pytest.raises(UpstreamProtocolViolation) as refused:
        IndexView(mask=read_mask(["ssn"])).shown(body)
    assert "ssn" not in str(refused.value)
    with pytest.raises(UpstreamProtocolViolation):
        IndexView(mask=None).shown(body)


def decided(*verdicts: AccessVerdict) -> Decision:
    return Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r")


def verdict(**obligations: Any) -> AccessVerdict:
    return AccessVerdict(owner="o", grants=("g",), **obligations)


def test_the_call_goes_as_it_came_and_its_answer_is_cut_down():
    for held in ({"filter": {"region": "EU"}}, {"mask": ("ssn",)}, {"filter": {"region": "EU"}, "mask": ("ssn",)}):
        todo = plan(decided(verdict(**held)), CALL, derive(CALL))
        assert todo.call is None
        assert todo.withholds
        assert todo.indexes is not None
        assert (todo.indexes.mask is not None) is ("mask" in held)
    whole = plan(decided(verdict()), CALL, derive(CALL))
    assert (whole.indexes, whole.withholds) == (None, False)


def test_behind_a_view_they_are_refused():
    """The indexes of a view's source are of documents that the view's own verdict says nothing of."""
    derivation = derive(CALL)
    source = derivation.command.accesses[0]
    both = Derivation(
        command=type(derivation.command)(tool=CALL.name, accesses=(source, source)),
        sites=(*derivation.sites, Site(1, (), SiteForm.VIEW)),
    )
    for held in ({"filter": {"region": "EU"}}, {"mask": ("ssn",)}):
        with pytest.raises(ObligationNotSupported):
            plan(decided(verdict(), verdict(**held)), CALL, both)
        with pytest.raises(ObligationNotSupported):
            plan(decided(verdict(**held), verdict(**held)), CALL, both)


@pytest.mark.parametrize(
    "held", [{"filter": {"$where": "1"}}, {"mask": ("",)}, {"mask": ({"field": "a", "as": "sha256"},)}]
)
def test_what_is_no_filter_or_mask_is_refused(held: Any) -> None:
    with pytest.raises(ObligationNotSupported):
        plan(decided(verdict(**held)), CALL, derive(CALL))


@pytest.mark.parametrize("tool", ["collection-storage-size", "db-stats", "collection-schema"])
def test_sizes_counts_and_samples_are_of_hidden_documents_too_and_refused_with_the_reason(tool: str) -> None:
    arguments = {key: value for key, value in ON.items() if tool != "db-stats" or key != "collection"}
    call = ToolCall(name=tool, arguments=arguments)
    for held in ({"filter": {"region": "EU"}}, {"mask": ("ssn",)}):
        with pytest.raises(ObligationNotSupported) as refused:
            plan(decided(verdict(**held)), call, derive(call))
        assert "all documents" in refused.value.because
