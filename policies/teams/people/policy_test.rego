# METADATA
# title: Tests of the people team's policy
package mcp.teams.people.policy_test

import data.mcp.teams.people

# METADATA
# title: A question to the team
question(groups, kind, collection) := {
	"subject": {"groups": groups},
	"actor": {"id": "desk", "chain": []},
	"access": {"kind": kind, "database": "hr", "collection": collection},
	"command": {"stages": []},
}

# METADATA
# title: The identifiers of the grants that match
ids(asked) := {grant.id | some grant in people.grant with input as asked}

patched(path, value) := json.patch(
	question(["hr-admins"], "read", "salaries"),
	[{"op": "replace", "path": path, "value": value}],
)

# METADATA
# title: The team's data, with no agent blocked
nobody_blocked := {"blocked_agents": []}

test_hr_admins_read if {
	ids(question(["hr-admins"], "read", "salaries")) == {"hr-admins-read"}
	ids(question(["hr-admins"], "metadata", "")) == {"hr-admins-see-the-catalogue"}
}

test_nobody_else_does_and_nobody_writes if {
	ids(question(["analysts"], "read", "salaries")) == set()
	ids(question(["analysts"], "metadata", "")) == set()
	ids(question(["hr-admins"], "insert", "salaries")) == set()
	ids(patched("/access/database", "sales")) == set()
	elsewhere := json.patch(question(["hr-admins"], "metadata", ""), [{"op": "replace", "path": "/access/database", "value": "sales"}])
	ids(elsewhere) == set()
}

test_nothing_is_denied_to_a_plain_read if {
	people.deny == set() with input as question(["hr-admins"], "read", "salaries") with data.mcp.grants.people as nobody_blocked
}

test_salaries_are_not_joined if {
	people.deny == {"salaries-in-a-pipeline"} with input as patched("/command/stages", ["$match", "$lookup"]) with data.mcp.grants.people as nobody_blocked
	people.deny == set() with input as patched("/command/stages", ["$match", "$group"]) with data.mcp.grants.people as nobody_blocked
}

test_other_collections_may_be_joined if {
	joined := json.patch(patched("/command/stages", ["$lookup"]), [{"op": "replace", "path": "/access/collection", "value": "teams"}])
	people.deny == set() with input as joined with data.mcp.grants.people as nobody_blocked
}

test_an_agent_of_an_agent_is_denied if {
	people.deny == {"delegated-agent"} with input as patched("/actor/chain", ["outer"]) with data.mcp.grants.people as nobody_blocked
}

test_a_blocked_agent_is_denied if {
	asked := question(["hr-admins"], "read", "salaries")
	people.deny == {"blocked-agent"} with input as asked with data.mcp.grants.people.blocked_agents as ["desk"]
	people.deny == set() with input as asked with data.mcp.grants.people.blocked_agents as ["desktop"]
	people.deny == {"blocked-agents-unknown"} with input as asked with data.mcp.grants.people as {}
}
