# METADATA
# title: Every golden case
# description: >-
#   The cases are loaded as data.mcp.cases. A case may replace tables of the platform's data (`data.platform`) and keys of the
#   teams' (`data.grants.<team>`).
package mcp.cases_test

import data.mcp.main

# METADATA
# title: The platform's table of this name, as the case has it
table(case, name, shipped) := object.get(case.data, ["platform", name], shipped)

# METADATA
# title: The decision on a case
decision(case) := answer if {
	answer := main.decision with input as case.input
		with data.mcp.revision as ""
		with data.mcp.grants as object.union(data.mcp.grants, object.get(case.data, "grants", {}))
		with data.mcp.platform.servers as table(case, "servers", data.mcp.platform.servers)
		with data.mcp.platform.routes as table(case, "routes", data.mcp.platform.routes)
		with data.mcp.platform.deployments as table(case, "deployments", data.mcp.platform.deployments)
		with data.mcp.platform.grants as table(case, "grants", data.mcp.platform.grants)
		with data.mcp.platform.agents as table(case, "agents", data.mcp.platform.agents)
		with data.mcp.platform.scopes as table(case, "scopes", data.mcp.platform.scopes)
		with data.mcp.platform.scope_issuers as table(case, "scope_issuers", {})
		with data.mcp.platform.traits as table(case, "traits", data.mcp.platform.traits)
		with data.mcp.platform.amplifiers as table(case, "amplifiers", data.mcp.platform.amplifiers)
		with data.mcp.platform.refused_kinds as table(case, "refused_kinds", data.mcp.platform.refused_kinds)
		with data.mcp.platform.windows as table(case, "windows", data.mcp.platform.windows)
		with data.mcp.platform.break_glass as table(case, "break_glass", data.mcp.platform.break_glass)
		with data.mcp.platform.suspended as table(case, "suspended", data.mcp.platform.suspended)
}

# METADATA
# title: There are cases
test_there_are_cases if count(data.mcp.cases) > 0

# METADATA
# title: Each case is decided as it says
test_case[name] if {
	some name, case in data.mcp.cases
	decision(case) == case.decision
}
