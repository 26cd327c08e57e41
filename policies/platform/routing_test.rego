# METADATA
# title: Tests of mcp.platform.routing
package mcp.platform.routing_test

import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.routing

insert := {"kind": "insert", "database": "shop", "collection": "orders", "via": ""}

# METADATA
# title: The server that a question goes to
server(asked, changed) := fixture.decide(asked, changed, fixture.teams).server

test_reads_go_where_nothing_can_be_written if {
	server(fixture.question, {}) == "ro"
}

test_a_call_that_writes_goes_where_it_can if {
	server(fixture.about([fixture.read("shop", "orders"), insert]), {}) == "rw"
}

test_a_kind_that_no_route_covers_has_no_route if {
	decision := fixture.decide(fixture.about([object.union(insert, {"kind": "drop"})]), {}, fixture.teams)
	decision.server == ""
	fixture.reason("no_route", null) in decision.reasons
	decision.accesses[0].owner == ""
}

test_a_call_that_does_nothing_has_no_route if {
	routes := routing.routes with input as fixture.about([]) with data.mcp.platform.routes as fixture.tables.routes
	routes == []
	some_routes := routing.routes with input as fixture.question with data.mcp.platform.routes as fixture.tables.routes
	count(some_routes) == 2
}

test_a_stranger_has_no_route if {
	asked := json.patch(fixture.question, [{"op": "replace", "path": "/subject/groups", "value": ["guests"]}])
	fixture.refused(fixture.decide(asked, {}, fixture.teams), [fixture.reason("no_route", null)])
}

test_groups_may_be_everybody if {
	asked := json.patch(fixture.question, [{"op": "replace", "path": "/subject/groups", "value": []}])
	route := object.union(fixture.tables.routes[0], {"groups": ["*"]})
	server(asked, {"routes": [route]}) == "ro"
}

test_a_group_called_star_is_not_everybody if {
	asked := json.patch(fixture.question, [{"op": "replace", "path": "/subject/groups", "value": ["*"]}])
	server(asked, {}) == ""
}

test_a_route_asks_for_the_agent if {
	asked := json.patch(fixture.about([insert]), [{"op": "replace", "path": "/actor/id", "value": "other"}])
	server(fixture.about([insert]), {}) == "rw"
	server(asked, {}) == ""
}

test_a_route_asks_for_the_scope if {
	asked := json.patch(fixture.about([insert]), [{"op": "replace", "path": "/subject/scopes", "value": ["read"]}])
	server(asked, {}) == ""
}

test_the_first_route_wins if {
	other := object.union(fixture.tables.routes[0], {"server": "west"})
	server(fixture.question, {"routes": [fixture.tables.routes[0], other]}) == "ro"
	server(fixture.question, {"routes": [other, fixture.tables.routes[0]]}) == "west"
}

test_a_route_to_an_unknown_server_leads_nowhere if {
	route := object.union(fixture.tables.routes[0], {"server": "gone"})
	fixture.refused(fixture.decide(fixture.question, {"routes": [route]}, fixture.teams), [fixture.reason("no_route", null)])
}

test_the_server_decides_the_deployment_and_so_the_owner if {
	route := object.union(fixture.tables.routes[0], {"server": "west"})
	agents := {"default": object.union(fixture.tables.agents["default"], {"servers": ["*"]}), "registered": {}}
	decision := fixture.decide(fixture.question, {"routes": [route], "agents": agents}, fixture.teams)
	fixture.refused(decision, [fixture.reason("no_owner", 0)])
}
