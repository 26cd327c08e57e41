# METADATA
# title: Tests of tools, prompts and resources outside of the catalog
package mcp.platform.targets_test

import data.mcp.platform.fixture_test as fixture

# METADATA
# title: A holding of what can be run
held(owner) := {"owner": owner, "delegated": [{"kinds": ["execute"], "collections": [""]}], "obligations": []}

# METADATA
# title: Tables in which teams and the platform own tools
changed := {
	"deployments": {"east": {
		"databases": {"shop": fixture.holding("red", ["*"], [])},
		"prefixes": {},
		"targets": {"tool": held("red"), "tool/report": held("blue"), "prompt": held("platform")},
	}},
	"routes": [{"id": "x", "groups": ["staff"], "agents": ["*"], "scopes": ["*"], "kinds": ["execute", "read"], "server": "ro"}],
	"agents": {"default": {"kinds": ["execute", "read"], "servers": ["*"], "deployments": ["*"]}, "registered": {}},
	"scopes": {"read": ["execute", "read"]},
	"grants": [{
		"id": "greetings",
		"groups": ["staff"],
		"kinds": ["execute"],
		"deployments": ["east"],
		"databases": [""],
		"collections": [""],
		"targets": ["greet*"],
	}],
}

# METADATA
# title: Running a target
run(kind, id) := {"kind": "execute", "database": "", "collection": "", "via": "/name", "target": {"kind": kind, "id": id}}

# METADATA
# title: The decision on running a target
decision(kind, id) := fixture.decide(fixture.about([run(kind, id)]), changed, fixture.teams)

test_the_team_that_owns_the_name_grants_it if {
	decision("tool", "report").allow
	decision("tool", "report").accesses[0].owner == "blue"
	decision("tool", "report").server == "ro"
}

test_without_an_owner_of_its_own_the_owner_of_the_kind_is_asked if {
	every name in ["reports", "Report", "repor", "report ", "", "tool/report", "report/x"] {
		decision("tool", name).accesses[0].owner == "red"
	}
}

test_a_question_is_asked_only_where_both_the_tool_and_the_question_are_granted if {
	asking := fixture.about([run("tool", "report"), run("question", "sampling")])
	fixture.refused(fixture.decide(asking, changed, fixture.teams), [fixture.reason("no_owner", 1)])
	grants := array.concat(changed.grants, [object.union(changed.grants[0], {"id": "asks", "targets": ["sampling"]})])
	owned := object.union(object.remove(changed, ["grants"]), {
		"grants": grants,
		"deployments": {"east": {"targets": {"question/sampling": held("platform")}}},
	})
	fixture.decide(asking, owned, fixture.teams).allow
	elicits := fixture.about([run("tool", "report"), run("question", "elicitation")])
	fixture.refused(fixture.decide(elicits, owned, fixture.teams), [fixture.reason("no_owner", 1)])
	other := fixture.about([run("prompt", "farewell"), run("question", "sampling")])
	fixture.refused(fixture.decide(other, owned, fixture.teams), [fixture.reason("not_granted", 0)])
}

test_a_name_of_one_kind_is_not_that_of_another if {
	decision("prompt", "report").accesses[0].owner == "platform"
	fixture.refused(decision("resource", "report"), [fixture.reason("no_owner", 0)])
	fixture.refused(decision("service", "report"), [fixture.reason("no_owner", 0)])
}

test_nobody_is_granted_a_tool_as_the_tables_stand if {
	"no_route" in fixture.codes(fixture.decide(fixture.about([run("tool", "report")]), {}, fixture.teams))
	some_routes := object.filter(changed, ["routes", "agents", "scopes"])
	asked := fixture.about([run("tool", "report")])
	fixture.refused(fixture.decide(asked, some_routes, fixture.teams), [fixture.reason("no_owner", 0)])
}

test_the_platform_grants_the_targets_that_it_names if {
	decision("prompt", "greeting").allow
	decision("prompt", "greeting").accesses[0].grants == ["greetings"]
	every name in ["a-greeting", "Greeting", ""] {
		fixture.refused(decision("prompt", name), [fixture.reason("not_granted", 0)])
	}
}

test_a_grant_with_targets_is_about_nothing_else if {
	deployments := {"east": {
		"whole": held("platform"), "databases": {}, "prefixes": {},
		"targets": {"cluster": held("platform")},
	}}
	tables := object.union(object.remove(changed, ["deployments"]), {"deployments": deployments})
	whole := object.remove(run("cluster", "c"), ["target"])
	every access in [whole, run("cluster", "c")] {
		answer := fixture.decide(fixture.about([access]), tables, fixture.teams)
		fixture.refused(answer, [fixture.reason("not_granted", 0)])
	}
	fixture.decide(fixture.about([run("cluster", "greet")]), tables, fixture.teams).allow
}

# METADATA
# title: The question with arguments that policy may see
with_arguments(arguments) := json.patch(
	fixture.about([run("tool", "report")]),
	[{"op": "add", "path": "/command/arguments", "value": arguments}],
)

test_arguments_of_values_without_parts_are_a_question if {
	every arguments in [{"/region": "EU"}, {"/region": "US"}, {"/n": 1}, {"/n": null}, {"/n": true}] {
		fixture.decide(with_arguments(arguments), changed, fixture.teams).allow
	}
}

test_arguments_of_another_form_are_no_question if {
	every arguments in [{}, [], "x", {"region": "EU"}, {"": "EU"}, {"/region": ["EU"]}, {"/region": {"a": 1}}] {
		fixture.refused(
			fixture.decide(with_arguments(arguments), changed, fixture.teams),
			[fixture.reason("invalid_input", null)],
		)
	}
}

# METADATA
# title: A tool of the list that is nothing but itself
tool(kind, id) := {"needs": ["execute"], "may_need": [], "target": {"kind": kind, "id": id}}

# METADATA
# title: The tools that show where the owners could grant this much
shown(possible, tables) := fixture.list(asked, tables).tools if {
	asked := listing(
		{
			"report": tool("tool", "report"),
			"other": tool("tool", "other"),
			"greeting": tool("prompt", "greeting"),
			"farewell": tool("prompt", "farewell"),
		},
		possible,
	)
}

# METADATA
# title: The question about a list of these tools
listing(tools, possible) := json.patch(fixture.listing, [
	{"op": "replace", "path": "/tools", "value": tools},
	{"op": "replace", "path": "/possible", "value": possible},
])

# METADATA
# title: A way to be granted what stands under these names
way(owner, kinds, databases, collections, targets) := {
	"owner": owner,
	"kinds": kinds,
	"databases": databases,
	"collections": collections,
	"targets": targets,
}

test_a_tool_shows_to_those_who_could_be_granted_it if {
	shown(null, changed) == ["greeting", "other", "report"]
	shown([], changed) == ["greeting"]
	shown([way("blue", null, null, null, ["report"])], changed) == ["greeting", "report"]
	shown([way("blue", ["execute"], [""], [""], null)], changed) == ["greeting", "report"]
	shown([way("red", ["execute"], null, null, ["report", "other"])], changed) == ["greeting", "other"]
}

test_a_tool_does_not_show_by_what_is_granted_elsewhere if {
	every grant in [
		way("blue", null, null, null, ["other"]),
		way("blue", ["read"], null, null, null),
		way("blue", null, ["shop"], null, null),
		way("blue", null, null, ["orders"], null),
		way("nobody", null, null, null, null),
	] {
		shown([grant], changed) == ["greeting"]
	}
}

test_a_tool_does_not_show_without_owner_route_or_ceiling if {
	shown(null, object.union(object.remove(changed, ["deployments"]), {"deployments": {"east": {
		"databases": {}, "prefixes": {},
		"targets": {},
	}}})) == []
	shown(null, object.union(changed, {"routes": fixture.tables.routes})) == []
	shown(null, object.union(object.remove(changed, ["agents"]), {"agents": fixture.tables.agents})) == []
	shown(null, object.union(changed, {"refused_kinds": ["execute"]})) == []
	closed := json.patch(changed.deployments, [{
		"op": "replace",
		"path": "/east/targets/tool~1report/delegated",
		"value": [{"kinds": ["execute"], "collections": ["*"]}],
	}])
	shown(null, object.union(changed, {"deployments": closed})) == ["greeting", "other"]
}

test_a_listing_with_a_target_of_another_form_shows_nothing if {
	every value in [
		object.union(tool("tool", "x"), {"may_need": ["read"]}),
		object.union(tool("tool", "x"), {"target": {"kind": "moon", "id": "x"}}),
		{"needs": ["execute"], "may_need": [], "target": {"kind": "tool"}},
		object.union(tool("tool", "x"), {"target": {"kind": "tool", "id": 1}}),
		object.union(tool("tool", "x"), {"needs": ["reads"]}),
		object.union(tool("tool", "x"), {"more": 1}),
	] {
		fixture.list(listing({"x": value}, null), changed) == {"v": 1, "tools": [], "servers": []}
	}
}
