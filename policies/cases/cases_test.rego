# METADATA
# title: Every golden case
# description: >-
#   The cases are loaded as data.mcp.cases. A case may replace tables of the platform's data (`data.platform`) and keys of the
#   teams' (`data.grants.<team>`).
package mcp.cases_test

import data.mcp.main

# METADATA
# title: The platform's tables, as the set has them
shipped[name] := data.mcp.platform[name] if {
	some name in {
		"servers",
		"routes",
		"deployments",
		"grants",
		"agents",
		"scopes",
		"scope_issuers",
		"traits",
		"amplifiers",
		"limits",
		"refused_kinds",
		"windows",
		"break_glass",
		"suspended",
	}
}

# METADATA
# title: The platform's table of this name, as the case has it; null where neither the case nor the set has one
table(case, name) := object.get(case.data, ["platform", name], object.get(shipped, name, null))

# METADATA
# title: Which issuers' scopes count, as the set has it; it need not be there
scope_issuers := object.get(shipped, "scope_issuers", {})

# METADATA
# title: The limits, as the set has them; they need not be there
limits := object.get(shipped, "limits", [])

# METADATA
# title: The teams' data, as the set has it; nothing where no team has any
grants := object.union_n([value | value := data.mcp.grants])

# METADATA
# title: The decision on a case
decision(case) := answer if {
	answer := main.decision with input as case.input
		with data.mcp.revision as ""
		with data.mcp.grants as object.union(grants, object.get(case.data, "grants", {}))
		with data.mcp.platform.servers as table(case, "servers")
		with data.mcp.platform.routes as table(case, "routes")
		with data.mcp.platform.deployments as table(case, "deployments")
		with data.mcp.platform.grants as table(case, "grants")
		with data.mcp.platform.agents as table(case, "agents")
		with data.mcp.platform.scopes as table(case, "scopes")
		with data.mcp.platform.scope_issuers as object.get(case.data, ["platform", "scope_issuers"], scope_issuers)
		with data.mcp.platform.traits as table(case, "traits")
		with data.mcp.platform.amplifiers as table(case, "amplifiers")
		with data.mcp.platform.limits as object.get(case.data, ["platform", "limits"], limits)
		with data.mcp.platform.refused_kinds as table(case, "refused_kinds")
		with data.mcp.platform.windows as table(case, "windows")
		with data.mcp.platform.break_glass as table(case, "break_glass")
		with data.mcp.platform.suspended as table(case, "suspended")
}

# METADATA
# title: The cases that the set can decide
# description: >-
#   The owners of what a case touches stand in its decision, or under `teams`, where it is refused before they are looked up.
#   Where the set has no such team, nobody can decide the case; `mcp-sidecar policy test` lists these cases.
decided := {name: case |
	some name, case in data.mcp.cases
	owners := {access.owner | some access in case.decision.accesses} - {"", "platform"}
	named := {team | some team in object.get(case, "teams", [])}
	count([team | some team in (owners | named); not data.mcp.teams[team]]) == 0
}

# METADATA
# title: There are cases
test_there_are_cases if count(decided) > 0

# METADATA
# title: Each case is decided as it says
test_case[name] if {
	some name, case in decided
	decision(case) == case.decision
}
