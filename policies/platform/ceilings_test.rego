# METADATA
# title: Tests of mcp.platform.ceilings
package mcp.platform.ceilings_test

import data.mcp.platform.fixture_test as fixture

insert := {"kind": "insert", "database": "shop", "collection": "orders", "via": ""}

# METADATA
# title: A question through an agent
through(agent, accesses) := json.patch(fixture.about(accesses), [{"op": "replace", "path": "/actor/id", "value": agent}])

test_an_agent_that_is_not_registered_has_the_default_ceiling if {
	fixture.allowed(through("desktop", [fixture.read("shop", "orders")]))
	fixture.refused(
		fixture.decide(through("desktop", [fixture.read("shop", "orders"), insert]), {}, fixture.teams),
		[fixture.reason("agent_ceiling", 1)],
	)
}

test_a_registered_agent_has_its_own if {
	fixture.allowed(through("desk", [insert]))
}

test_agents_named_by_urls_are_registered_by_origin if {
	agents := {
		"default": fixture.tables.agents["default"],
		"registered": {
			"https://apps.example/*": fixture.tables.agents.registered.desk,
			"https://partner.example/*": object.union(fixture.tables.agents.registered.desk, {"issuers": ["https://partner.example"]}),
			"http://apps.example/*": fixture.tables.agents.registered.desk,
			"https:/apps.example/x/*": fixture.tables.agents.registered.desk,
			"https://apps.example/other.json": {"kinds": ["read"], "servers": ["*"], "deployments": ["*"]},
		},
	}
	tables := {"agents": agents, "routes": [object.union(route, {"agents": ["*"]}) | some route in fixture.tables.routes]}
	every url in ["https://apps.example/desk.json", "https://apps.example/a/b", "https://apps.example/"] {
		fixture.decide(through(url, [insert]), tables, fixture.teams).allow
	}
	every url in [
		"https://apps.example",
		"https://partner.example/desk.json",
		"https:/apps.example/x/desk.json",
		"http://apps.example/desk.json",
		"HTTPS://apps.example/desk.json",
		"https://apps.example:8443/desk.json",
		"https://apps.example./desk.json",
		"https://Apps.example/desk.json",
		"https://desk@apps.example/desk.json",
		"https://apps.example@evil.example/desk.json",
		"https://apps.example.evil.example/desk.json",
		"https://apps.example?/desk.json",
		"https://apps.example\\@evil.example/desk.json",
		"https:///apps.example/desk.json",
		"https:/apps.example/desk.json",
		"apps.example/desk.json",
		"https://apps.example/other.json",
	] {
		decision := fixture.decide(through(url, [insert]), tables, fixture.teams)
		fixture.refused(decision, [fixture.reason("agent_ceiling", 0)])
	}
}

test_the_default_may_be_nothing if {
	agents := {"default": {"kinds": [], "servers": [], "deployments": []}, "registered": {}}
	decision := fixture.decide(fixture.question, {"agents": agents}, fixture.teams)
	fixture.refused(decision, [fixture.reason("agent_ceiling", null), fixture.reason("agent_ceiling", 0)])
}

test_an_agent_stays_on_its_servers_and_deployments if {
	good := fixture.tables.agents.registered.desk
	every change in [{"servers": ["rw"]}, {"deployments": ["west"]}] {
		agents := {"default": fixture.tables.agents["default"], "registered": {"desk": object.union(good, change)}}
		decision := fixture.decide(fixture.question, {"agents": agents}, fixture.teams)
		fixture.refused(decision, [fixture.reason("agent_ceiling", null)])
	}
}

test_the_scopes_must_open_the_kind if {
	asked := json.patch(fixture.question, [{"op": "replace", "path": "/subject/scopes", "value": ["write", "unknown"]}])
	fixture.refused(fixture.decide(asked, {}, fixture.teams), [fixture.reason("scope_missing", 0)])
	none := json.patch(fixture.question, [{"op": "replace", "path": "/subject/scopes", "value": []}])
	fixture.refused(
		fixture.decide(none, {"routes": [object.union(fixture.tables.routes[0], {"scopes": ["*"]})]}, fixture.teams),
		[fixture.reason("scope_missing", 0)],
	)
}

test_of_several_kinds_the_one_that_no_scope_opens_is_named if {
	asked := json.patch(fixture.about([fixture.read("shop", "orders"), insert]), [{
		"op": "replace",
		"path": "/subject/scopes",
		"value": ["read"],
	}])
	routes := [object.union(fixture.tables.routes[1], {"scopes": ["*"]})]
	fixture.refused(fixture.decide(asked, {"routes": routes}, fixture.teams), [fixture.reason("scope_missing", 1)])
}
