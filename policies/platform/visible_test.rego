# METADATA
# title: Tests of mcp.platform.visible
package mcp.platform.visible_test

import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.visible

# METADATA
# title: The fixture's listing with one place changed
patched(path, value) := json.patch(fixture.listing, [{"op": "replace", "path": path, "value": value}])

nothing := {"v": 1, "tools": [], "servers": []}

test_a_tool_shows_if_one_of_its_kinds_could_be_allowed if {
	fixture.list(fixture.listing, {}) == {"v": 1, "tools": ["aggregate", "any", "copy", "find", "insert-many"], "servers": ["ro", "rw"]}
}

test_a_caller_without_a_route_sees_nothing if {
	fixture.list(patched("/subject/groups", ["guests"]), {}) == nothing
}

test_a_malformed_listing_sees_nothing if {
	fixture.list({}, {}) == nothing
	fixture.list(patched("/v", 2), {}) == nothing
}

test_broken_data_shows_nothing if {
	fixture.list(fixture.listing, {"windows": "x"}) == nothing
}

test_scopes_that_the_token_lacks_do_not_hide_what_they_open if {
	every scopes in [["read"], [], ["other"], ["read", "write"]] {
		fixture.list(patched("/subject/scopes", scopes), {}) == fixture.list(fixture.listing, {})
	}
	count(fixture.list(fixture.listing, {}).tools) > 0
}

test_what_no_scope_opens_does_not_show if {
	read := {"v": 1, "tools": ["aggregate", "find"], "servers": ["ro"]}
	fixture.list(fixture.listing, {"scopes": {"read": ["read"]}, "routes": fixture.tables.routes}).tools == ["aggregate", "find"]
	routes := [fixture.tables.routes[0], object.union(fixture.tables.routes[1], {"scopes": ["a b"]})]
	fixture.list(fixture.listing, {"routes": routes}) == read
	fixture.list(patched("/subject/scopes", []), {"scopes": {"read": ["read"]}, "scope_issuers": {"read": []}}).tools == []
}

test_the_agents_ceiling_bounds_what_shows if {
	fixture.list(patched("/actor/id", "desktop"), {}).tools == ["aggregate", "find"]
	agents := {"default": {"kinds": ["read"], "servers": [], "deployments": ["*"]}, "registered": {}}
	fixture.list(fixture.listing, {"agents": agents}) == nothing
}

test_a_suspended_caller_sees_nothing if {
	fixture.list(fixture.listing, {"suspended": {"subjects": [], "agents": ["desk"]}}) == nothing
}

test_a_closed_kind_does_not_show if {
	fixture.list(fixture.listing, {"refused_kinds": ["insert"]}).tools == ["aggregate", "find"]
}

test_what_is_delegated_to_nobody_does_not_show if {
	holding := {"owner": "red", "delegated": [{"kinds": ["metadata"], "collections": ["*"]}], "obligations": []}
	deployments := {"east": {"databases": {"shop": holding}, "prefixes": {}, "targets": {}}}
	fixture.list(fixture.listing, {"deployments": deployments}) == {"v": 1, "tools": [], "servers": ["ro", "rw"]}
}

test_what_is_delegated_elsewhere_does_not_show if {
	route := object.union(fixture.tables.routes[0], {"server": "west"})
	agents := {"default": object.union(fixture.tables.agents["default"], {"servers": ["*"]}), "registered": {}}
	fixture.list(fixture.listing, {"routes": [route], "agents": agents}) == {"v": 1, "tools": [], "servers": ["west"]}
}

test_a_route_to_an_unknown_server_shows_nothing if {
	route := object.union(fixture.tables.routes[0], {"server": "gone"})
	fixture.list(fixture.listing, {"routes": [route]}) == nothing
}

# METADATA
# title: A deployment of which the platform holds the whole, and nobody anything else
whole_alone := {"east": {
	"whole": {"owner": "platform", "delegated": [{"kinds": ["metadata"], "collections": [""]}], "obligations": []},
	"databases": {}, "prefixes": {}, "targets": {},
}}

# METADATA
# title: The platform lists databases
list_databases := {"list-databases": fixture.needing(["metadata"])}

test_what_is_delegated_on_the_whole_deployment_shows if {
	asked := patched("/tools", object.union(list_databases, {"find": fixture.needing(["read"])}))
	fixture.list(asked, {"deployments": whole_alone}).tools == ["list-databases"]
}

test_what_the_platform_holds_and_does_not_grant_does_not_show if {
	every possible in [null, [fixture.possible("platform", null, null, null)]] {
		asked := json.patch(patched("/tools", list_databases), [{"op": "replace", "path": "/possible", "value": possible}])
		fixture.list(asked, {"deployments": whole_alone, "grants": []}).tools == []
	}
}

test_a_view_is_no_holding if {
	views := {"shop": {"owner": {"sources": [{"database": "blue", "collection": "orders"}], "alone": false}}}
	visible.holdings("east") == set() with data.mcp.platform.deployments as {"east": {"databases": {}, "views": views}}
}

# METADATA
# title: The tools that show where the owners could grant this much
shown(possible) := fixture.list(patched("/possible", possible), {}).tools

test_what_no_owner_could_grant_does_not_show if {
	shown([]) == []
	shown([fixture.possible("nobody", null, null, null)]) == []
}

test_an_owner_who_could_grant_anything_shows_everything if {
	shown([fixture.possible("red", null, null, null)]) == ["aggregate", "any", "copy", "find", "insert-many"]
}

test_only_the_kinds_that_could_be_granted_show if {
	shown([fixture.possible("red", ["insert"], null, null)]) == ["any", "insert-many"]
	shown([fixture.possible("red", ["read"], null, null)]) == ["aggregate", "find"]
	shown([fixture.possible("red", ["read"], null, null), fixture.possible("blue", ["insert"], null, null)]) == [
		"aggregate",
		"any",
		"copy",
		"find",
		"insert-many",
	]
}

test_what_every_call_needs_must_be_had_on_one_server if {
	routes := [
		object.union(fixture.tables.routes[0], {"kinds": ["read"], "server": "ro"}),
		object.union(fixture.tables.routes[1], {"kinds": ["insert"], "server": "rw"}),
	]
	fixture.list(fixture.listing, {"routes": routes}).tools == ["aggregate", "any", "find", "insert-many"]
}

test_a_grant_counts_only_on_what_its_owner_holds if {
	shown([fixture.possible("red", ["read"], ["shop"], null)]) == ["aggregate", "find"]
	shown([fixture.possible("blue", ["read"], ["shop"], null)]) == []
	shown([fixture.possible("red", ["read"], ["tmp_x"], null)]) == ["aggregate", "find"]
	shown([fixture.possible("blue", ["read"], ["tmp_x"], null)]) == []
	shown([fixture.possible("red", ["read"], [""], null)]) == ["aggregate", "find"]
	shown([fixture.possible("blue", ["read"], [""], null)]) == []
}

test_the_rest_of_the_databases_a_whole_and_a_target_are_no_database if {
	shown([fixture.possible("red", ["read"], ["elsewhere"], null)]) == []
	shown([fixture.possible("red", ["read"], ["cluster"], null)]) == []
}

test_the_name_of_a_database_is_no_prefix if {
	shown([fixture.possible("blue", ["read"], ["blue2"], null)]) == []
}

test_a_grant_counts_only_on_collections_that_are_delegated if {
	shown([fixture.possible("blue", ["read"], ["blue"], ["orders_1"])]) == ["aggregate", "find"]
	shown([fixture.possible("blue", ["read"], ["blue"], ["returns"])]) == []
}

test_what_the_platform_grants_shows_whatever_the_teams_grant if {
	asked := json.patch(patched("/possible", []), [{"op": "replace", "path": "/tools", "value": list_databases}])
	fixture.list(asked, {}).tools == ["list-databases"]
	fixture.list(asked, {"grants": []}).tools == []
	fixture.list(asked, {"grants": [object.union(fixture.tables.grants[0], {"groups": ["x"]})]}).tools == []
	fixture.list(asked, {"grants": [object.union(fixture.tables.grants[0], {"deployments": ["west"]})]}).tools == []
}

test_only_owners_within_reach_are_looked_at if {
	caller := {"v": 1, "subject": fixture.question.subject, "actor": fixture.question.actor}
	fixture.owners(caller) == {"red", "blue", "platform"}
	fixture.owners(json.patch(caller, [{"op": "replace", "path": "/subject/groups", "value": ["guests"]}])) == set()
}
