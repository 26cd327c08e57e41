# METADATA
# title: What a caller may see in a list of tools
# description: >-
#   A tool shows if one of its kinds could be allowed: a route of this caller covers it, the agent and the token's scopes reach
#   it, it is not closed to everybody, and the platform delegated it to somebody in that server's deployment. A caller without a
#   route sees nothing.
# schemas:
#   - input: schema.visibility
package mcp.platform.visible

import data.mcp.platform.ceilings
import data.mcp.platform.configuration
import data.mcp.platform.guardrails
import data.mcp.platform.input_check
import data.mcp.platform.routing

# METADATA
# title: The routes of this caller that lead somewhere
routes := [route |
	input_check.valid_visibility
	configuration.sound
	count([reason | some reason in guardrails.reasons; reason.code == "suspended"]) == 0
	some route in data.mcp.platform.routes
	data.mcp.platform.servers[route.server].deployment
	routing.caller_fits(route)
	ceilings.agent_reaches(route.server)
]

# METADATA
# title: The servers that this caller's calls can go to
servers := {route.server | some route in routes}

# METADATA
# title: The kinds that could be allowed to this caller
kinds contains kind if {
	some route in routes
	some kind in route.kinds
	kind in ceilings.agent.kinds
	kind in ceilings.scoped_kinds
	not kind in data.mcp.platform.refused_kinds
	delegated(data.mcp.platform.servers[route.server].deployment, kind)
}

# METADATA
# title: The platform delegated the kind to somebody in the deployment
# scope: document
delegated(deployment, kind) if {
	some table in ["targets", "prefixes", "databases"]
	some holding in data.mcp.platform.deployments[deployment][table]
	some entry in holding.delegated
	kind in entry.kinds
}

delegated(deployment, kind) if {
	some entry in data.mcp.platform.deployments[deployment].whole.delegated
	kind in entry.kinds
}

# METADATA
# title: The tools that show
tools contains name if {
	some name, listed in input.tools
	some kind in listed
	kind in kinds
}
