# METADATA
# title: The people team's database, hr
# description: HR administrators read it, through agents that the team knows; nobody writes here.
# schemas:
#   - input: schema.question
package mcp.teams.people

import data.mcp.lib

# METADATA
# title: What the team grants
# scope: document
grant contains {"id": "hr-admins-read"} if {
	lib.reads
	lib.on("hr", ["*"])
	lib.in_group("hr-admins")
}

grant contains {"id": "hr-admins-see-the-catalogue"} if {
	lib.reads_metadata
	lib.on("hr", ["", "*"])
	lib.in_group("hr-admins")
}

# METADATA
# title: What the team denies; a deny beats every grant
# scope: document
deny contains "delegated-agent" if count(input.actor.chain) > 0

# A read of salaries beside something else is how salaries leave in a join.
deny contains "salaries-in-a-pipeline" if {
	lib.on("hr", ["salaries"])
	some stage in input.command.stages
	stage in {"$lookup", "$graphLookup", "$unionWith", "$out", "$merge"}
}

deny contains "blocked-agent" if input.actor.id in data.mcp.grants.people.blocked_agents

# A deny that reads data says what happens when the data is not there.
deny contains "blocked-agents-unknown" if not data.mcp.grants.people.blocked_agents
