# METADATA
# title: Tests of mcp.platform.input_check
package mcp.platform.input_check_test

import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.input_check

# METADATA
# title: The fixture's question with one place changed
patched(operation, path, value) := json.patch(fixture.question, [{"op": operation, "path": path, "value": value}])

listing(operation, path, value) := json.patch(fixture.listing, [{"op": operation, "path": path, "value": value}])

# METADATA
# title: A read of a source behind a view
through_view := object.union(fixture.read("shop", "orders"), {"via_view": {"database": "shop", "collection": "v"}})

# METADATA
# title: A read of what is no namespace
targeted := object.union(fixture.read("", ""), {"target": {"kind": "cluster", "id": ""}})

test_the_fixture_is_well_formed if {
	input_check.valid with input as fixture.question
	input_check.valid_visibility with input as fixture.listing
}

test_what_the_contract_allows_is_well_formed if {
	every change in [
		["/subject/groups", []],
		["/subject/claims", {}],
		["/actor/chain", ["outer", "inner"]],
		["/command/limit", 0],
		["/command/limit", 100],
		["/command/fields/returned", ["a.b"]],
		["/command/fields/returned", []],
		["/command/stages", ["$match"]],
		["/command/traits", ["upsert", "cost"]],
		["/command/amplifiers", [{"construct": "$range.length", "number": 1, "at": "/"}]],
		["/command/amplifiers", [{"construct": "$range.length", "number": null, "at": "/"}, {"construct": "growth", "number": 1.5, "at": ""}]],
		["/context/approval", {"id": "a"}],
		["/accesses/0/collection", ""],
		["/accesses/0", through_view],
		["/accesses/0", {"kind": "metadata", "database": "", "collection": "", "via": ""}],
		["/accesses/0", targeted],
	] {
		input_check.valid with input as patched("add", change[0], change[1])
	}
}

test_what_differs_in_one_place_is_not if {
	every change in [
		["/v", 2],
		["/v", "1"],
		["/extra", 1],
		["/subject/type", "agent"],
		["/subject/id", ""],
		["/subject/id", 7],
		["/subject/issuer", ""],
		["/subject/issuer", 7],
		["/subject/groups", "staff"],
		["/subject/groups", [1]],
		["/subject/roles", null],
		["/subject/scopes", {"read": true}],
		["/subject/scopes", "read"],
		["/subject/claims", []],
		["/subject/extra", 1],
		["/actor/type", "user"],
		["/actor/id", ""],
		["/actor/id", 7],
		["/actor/chain", [null]],
		["/actor/chain", "outer"],
		["/actor/extra", 1],
		["/action/method", ""],
		["/action/method", 7],
		["/action/tool", ""],
		["/action/tool", 7],
		["/action/extra", 1],
		["/accesses", []],
		["/accesses", {}],
		["/accesses", {"0": fixture.read("shop", "orders")}],
		["/accesses/0", "x"],
		["/accesses/0/via_view", {"database": "shop", "collection": "v", "x": 1}],
		["/accesses/0", object.union(through_view, {"x": 1})],
		["/accesses/0", object.union(through_view, {"kind": "reads"})],
		["/accesses/0", object.union(through_view, {"via": 1})],
		["/accesses/0", object.union(through_view, {"database": 1})],
		["/accesses/0", object.union(through_view, {"collection": 1})],
		["/accesses/0", object.union(through_view, {"target": {"kind": "cluster", "id": ""}})],
		["/accesses/0", object.union(fixture.read("", ""), {"kind": "reads"})],
		["/accesses/0", object.union(fixture.read("", ""), {"via": 1})],
		["/accesses/0", object.union(targeted, {"via": 1})],
		["/accesses/0", object.union(targeted, {"database": "shop"})],
		["/accesses/0", object.union(targeted, {"x": 1})],
		["/accesses/0", object.union(targeted, {"kind": "reads"})],
		["/command/fields/extra", 1],
		["/accesses/0", {
			"kind": "read",
			"database": "",
			"collection": "",
			"via": "",
			"target": {"kind": "cluster", "id": "", "x": 1},
		}],
		["/accesses/0", {"kind": "read", "database": "", "collection": "c", "via": ""}],
		["/accesses/0/kind", "reads"],
		["/accesses/0/kind", ["read"]],
		["/accesses/0/database", null],
		["/accesses/0/database", ""],
		["/accesses/0/collection", null],
		["/accesses/0/via", 1],
		["/accesses/0/extra", 1],
		["/accesses/0/target", {"kind": "cluster", "id": ""}],
		["/accesses/0/via_view", {"database": "shop", "collection": ""}],
		["/accesses/0/via_view", {"database": "", "collection": "v"}],
		["/accesses/0/via_view", {"database": "shop"}],
		["/accesses/0/via_view", null],
		["/accesses/0", {"kind": "read", "database": "", "collection": "", "via": "", "target": {"kind": "moon", "id": ""}}],
		["/accesses/0", {"kind": "read", "database": "", "collection": "", "via": "", "target": {"kind": "cluster", "id": 1}}],
		["/accesses/0", {"kind": "read", "database": "", "collection": "", "via": "", "target": {"kind": "cluster"}}],
		["/accesses/0", {
			"kind": "read", "database": "", "collection": "", "via": "",
			"via_view": {"database": "shop", "collection": "v"},
		}],
		["/command/traits", ["harmless"]],
		["/command/traits", "upsert"],
		["/command/stages", [1]],
		["/command/stages", "$match"],
		["/command/fields", {}],
		["/command/fields/filtered", "all"],
		["/command/fields/returned", "some"],
		["/command/fields/returned", null],
		["/command/limit", -1],
		["/command/limit", 1.5],
		["/command/limit", "1"],
		["/command/extra", 1],
		["/command/amplifiers", null],
		["/command/amplifiers", false],
		["/command/amplifiers", []],
		["/command/amplifiers", {"construct": "$range.length", "number": 1, "at": "/"}],
		["/command/amplifiers", {"0": {"construct": "$range.length", "number": 1, "at": "/"}}],
		["/command/amplifiers", ["$range.length"]],
		["/command/amplifiers", [{"construct": "$range.length", "number": "1", "at": "/"}]],
		["/command/amplifiers", [{"construct": 1, "number": 1, "at": "/"}]],
		["/command/amplifiers", [{"construct": "$range.length", "number": 1, "at": 1}]],
		["/command/amplifiers", [{"construct": "$range.length", "number": 1}]],
		["/command/amplifiers", [{"construct": "$range.length", "number": 1, "at": "/", "extra": 1}]],
		["/context/time_ns", -1],
		["/context/time_ns", 9223372036854775808],
		["/context/time_ns", "0"],
		["/context/client_ip", null],
		["/context/protocol", null],
		["/context/environment", null],
		["/context/approval", "yes"],
		["/context/extra", 1],
	] {
		not input_check.valid with input as patched("add", change[0], change[1])
	}
}

test_one_of_several_that_is_not_is_enough if {
	good := [fixture.read("shop", "orders"), through_view, targeted, fixture.read("", "")]
	input_check.valid with input as fixture.about(good)
	every index, _ in good {
		bad := json.patch(good, [{"op": "add", "path": sprintf("/%d/extra", [index]), "value": 1}])
		not input_check.valid with input as fixture.about(bad)
	}
}

test_what_is_missing_is_missed if {
	every path in [
		"/v", "/subject", "/actor", "/action", "/accesses", "/command", "/context", "/subject/issuer", "/subject/claims",
		"/actor/chain", "/action/tool", "/accesses/0/via", "/accesses/0/collection", "/command/traits", "/command/limit",
		"/command/fields/returned", "/context/approval",
	] {
		not input_check.valid with input as patched("remove", path, null)
	}
}

test_more_accesses_than_the_most_are_too_many if {
	access := fixture.read("shop", "orders")
	most := [access | some _ in time_list(256)]
	input_check.valid with input as fixture.about(most)
	not input_check.valid with input as fixture.about(array.concat(most, [access]))
}

# METADATA
# title: A list of this length
time_list(length) := array.slice(split(sprintf("%0300d", [0]), ""), 0, length)

test_a_listing_that_differs_in_one_place_is_not_well_formed if {
	every change in [
		["/v", 2],
		["/extra", 1],
		["/action/method", "tools/call"],
		["/action/tool", "find"],
		["/tools", []],
		["/tools/find", ["read"]],
		["/tools/find/needs", "read"],
		["/tools/find/needs", ["reads"]],
		["/tools/find/may_need", ["reads"]],
		["/tools/find/other", []],
		["/possible", {}],
		["/possible", [null]],
		["/possible", [fixture.possible("", null, null, null)]],
		["/possible", [fixture.possible("red", "read", null, null)]],
		["/possible", [fixture.possible("red", null, [1], null)]],
		["/possible", [fixture.possible("red", null, null, {})]],
		["/possible", [object.union(fixture.possible("red", null, null, null), {"grant": {}})]],
		["/subject/id", ""],
		["/actor/id", ""],
		["/context/time_ns", -1],
	] {
		not input_check.valid_visibility with input as listing("add", change[0], change[1])
	}
}

test_no_tools_are_a_listing_too if {
	input_check.valid_visibility with input as listing("add", "/tools", {})
}

test_what_could_be_granted_is_part_of_a_listing if {
	every possible in [null, [], [fixture.possible("red", null, null, null), fixture.possible("red", [], ["shop"], [""])]] {
		input_check.valid_visibility with input as listing("replace", "/possible", possible)
	}
}
