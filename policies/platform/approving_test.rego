# METADATA
# title: Tests of mcp.platform.approving
package mcp.platform.approving_test

import data.mcp.platform.fixture_test as fixture

# METADATA
# title: Who may approve what
table := [
	{"id": "red", "teams": ["red"], "kinds": ["read"], "groups": ["leads"], "agents": ["console"], "scopes": ["approve"]},
	{"id": "own", "teams": ["platform"], "kinds": ["metadata"], "groups": ["leads"], "agents": ["console"], "scopes": ["*"]},
]

# METADATA
# title: A question that is answered with yes
question := {
	"v": 1,
	"subject": object.union(fixture.question.subject, {"id": "bob", "groups": ["leads"], "scopes": ["approve"]}),
	"actor": {"type": "agent", "id": "console", "chain": []},
	"action": {"method": "approvals"},
	"server": "ro",
	"requester": {"issuer": "https://idp.example", "id": "ann", "agent": "desk"},
	"accesses": [fixture.read("shop", "orders")],
	"context": fixture.question.context,
}

# METADATA
# title: Teams of which both name the person that the platform's table admits
teams := {"red": {"approver": {"any"}}, "blue": {"approver": {"any"}}}

# METADATA
# title: The answer under some tables
answer(asked, changed, authors) := found if {
	found := data.mcp.main.approver with input as asked
		with data.mcp.revision as "r1"
		with data.mcp.teams as authors
		with data.mcp.platform.approvers as object.get(changed, "approvers", table)
		with data.mcp.platform.servers as fixture.tables.servers
		with data.mcp.platform.routes as fixture.tables.routes
		with data.mcp.platform.deployments as object.get(changed, "deployments", fixture.tables.deployments)
		with data.mcp.platform.grants as fixture.tables.grants
		with data.mcp.platform.agents as fixture.tables.agents
		with data.mcp.platform.scopes as fixture.tables.scopes
		with data.mcp.platform.traits as fixture.tables.traits
		with data.mcp.platform.amplifiers as fixture.tables.amplifiers
		with data.mcp.platform.limits as []
		with data.mcp.platform.refused_kinds as fixture.tables.refused_kinds
		with data.mcp.platform.windows as fixture.tables.windows
		with data.mcp.platform.break_glass as fixture.tables.break_glass
		with data.mcp.platform.suspended as object.get(changed, "suspended", fixture.tables.suspended)
}

may(asked) if answer(asked, {}, teams).may == true

# METADATA
# title: The question with one place changed
patched(path, value) := json.patch(question, [{"op": "replace", "path": path, "value": value}])

test_a_person_whom_both_name_may if {
	answer(question, {}, teams) == {"v": 1, "may": true, "revision": "r1"}
}

# METADATA
# title: As many accesses as one question may hold
full := [fixture.read("shop", sprintf("c%d%d", [i, j])) | some i, _ in sixteen; some j, _ in sixteen]

sixteen := split("0123456789abcdef", "")

test_what_is_not_a_question_is_refused if {
	every asked in [
		{},
		patched("/v", 2),
		patched("/action/method", "tools/call"),
		patched("/server", ""),
		patched("/server", "other"),
		patched("/server", "west"),
		patched("/requester", {"issuer": "https://idp.example", "id": "ann"}),
		patched("/requester/id", ""),
		patched("/requester/agent", ""),
		patched("/requester/issuer", ""),
		patched("/accesses", []),
		patched("/accesses", {}),
		patched("/accesses/0/kind", "dance"),
		patched("/accesses", array.concat(full, [fixture.read("shop", "one-more")])),
		object.union(question, {"more": 1}),
	] {
		answer(asked, {}, teams) == {"v": 1, "may": false, "revision": "r1"}
	}
	may(patched("/accesses", full))
}

test_nobody_approves_their_own_call if {
	not may(patched("/requester/id", "bob"))
	not may(json.patch(question, [
		{"op": "replace", "path": "/requester/id", "value": "bob"},
		{"op": "replace", "path": "/requester/agent", "value": "console"},
	]))

	# The same name of another issuer is another person.
	may(json.patch(question, [
		{"op": "replace", "path": "/requester/id", "value": "bob"},
		{"op": "replace", "path": "/requester/issuer", "value": "https://other.example"},
	]))
}

test_software_approves_nothing if {
	not may(patched("/subject/type", "service"))
}

test_a_suspended_person_or_client_approves_nothing if {
	every suspended in [
		{"subjects": [{"issuer": "https://idp.example", "id": "bob"}], "agents": []},
		{"subjects": [], "agents": ["console"]},
	] {
		not answer(question, {"suspended": suspended}, teams).may
	}
	answer(question, {"suspended": {"subjects": [{"issuer": "https://idp.example", "id": "ann"}], "agents": []}}, teams).may
}

test_each_part_of_the_table_counts if {
	not may(patched("/subject/groups", ["staff"]))
	not may(patched("/subject/scopes", ["read"]))
	not may(patched("/actor/id", "desk"))
	not may(patched("/accesses/0/kind", "update"))
	not may(patched("/accesses/0/database", "blue"))
	not may(patched("/accesses/0/database", "nobodys"))
	not answer(question, {"approvers": []}, teams).may
}

test_every_access_counts if {
	not may(patched("/accesses", [fixture.read("shop", "orders"), fixture.read("blue", "orders")]))
	not may(patched("/accesses", [fixture.read("shop", "orders"), fixture.read("nobodys", "orders")]))
	may(patched("/accesses", [fixture.read("shop", "orders"), fixture.read("shop", "carts")]))
}

test_the_team_has_to_name_the_person_too if {
	every said in [{}, {"red": {}}, {"red": {"approver": set()}}, {"red": {"approver": true}}, {"red": {"approver": {1}}}] {
		not answer(question, {}, said).may
	}
}

test_the_team_is_asked_about_the_approver_and_one_access if {
	seen := data.mcp.platform.approving.question(question.accesses[0]) with input as question
	seen.subject.id == "bob"
	seen.access == question.accesses[0]
	object.keys(seen) == {"v", "subject", "actor", "action", "access", "context"}
}

test_what_the_platform_owns_needs_its_table_only if {
	whole := {"kind": "metadata", "database": "", "collection": "", "via": "/name"}
	asked := patched("/accesses", [whole])
	answer(asked, {}, {}).may
	not answer(asked, {"approvers": [table[0]]}, {}).may
}

test_the_sources_of_a_declared_view_count if {
	view := {"sources": [{"database": "blue", "collection": "orders"}], "alone": false}
	east := object.union(fixture.tables.deployments.east, {"views": {"shop": {"v": view}}})
	changed := {"deployments": object.union(fixture.tables.deployments, {"east": east})}
	asked := patched("/accesses", [fixture.read("shop", "v")])
	not answer(asked, changed, teams).may
	both := [object.union(table[0], {"teams": ["*"]})]
	answer(asked, object.union(changed, {"approvers": both}), teams).may
	not answer(asked, object.union(changed, {"approvers": both}), {"red": {"approver": {"any"}}}).may
}

test_with_several_issuers_an_entry_says_whose_people if {
	asked := object.union(question, {"subject": object.union(question.subject, {"several_issuers": true})})
	not answer(asked, {}, teams).may
	not answer(asked, {"approvers": [object.union(table[0], {"issuers": ["https://other.example"]})]}, teams).may
	answer(asked, {"approvers": [object.union(table[0], {"issuers": ["https://idp.example"]})]}, teams).may
}

test_a_table_of_another_form_approves_nothing if {
	every broken in [
		{},
		"x",
		[1],
		[table[0], object.remove(table[0], ["agents"])],
		[table[0], object.union(table[0], {"groups": []})],
		[table[0], object.union(table[0], {"kinds": ["dance"]})],
		[table[0], object.union(table[0], {"issuers": "https://idp.example"})],
		[table[0], object.union(table[0], {"id": ""})],
	] {
		not answer(question, {"approvers": broken}, teams).may
	}
}
