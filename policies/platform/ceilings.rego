# METADATA
# title: What the agent and the token may do at most
# description: >-
#   Both must be allowed: the user by grants, and the agent and the token's scopes by these ceilings. An agent that is not
#   registered has the default ceiling, which may be nothing. A scope that is not mapped opens nothing.
# schemas:
#   - input: schema.input
package mcp.platform.ceilings

import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.touched

# METADATA
# title: The registration of the agent that acts, where it counts for the caller's issuer
# description: >-
#   Under its exact id. An agent that is named by the URL of its metadata (OAuth client id metadata document) can also be
#   registered with all others of its origin, as `https://host/*`. The URL is a name; nothing is fetched.
# scope: document
registered := entry if {
	entry := data.mcp.platform.agents.registered[input.actor.id]
	issuers.counts(entry)
}

registered := entry if {
	not data.mcp.platform.agents.registered[input.actor.id]
	entry := data.mcp.platform.agents.registered[concat("", [origin, "/*"])]
	issuers.counts(entry)
}

# METADATA
# title: The origin of the agent's id, where that is an https URL with a path
origin := concat("/", array.slice(parts, 0, 3)) if {
	parts := split(input.actor.id, "/")
	count(parts) > 3
	parts[0] == "https:"
	parts[1] == ""
}

# METADATA
# title: The ceiling of the agent that acts
# description: Of an agent that is not registered, the default, where that counts for the caller's issuer; else there is none.
# scope: document
agent := registered

agent := entry if {
	not registered
	entry := data.mcp.platform.agents["default"]
	issuers.counts(entry)
}

# METADATA
# title: The scope counts in tokens of the caller's issuer
# scope: document
scope_counts(scope) if issuers.covered(data.mcp.platform.scope_issuers[scope])

scope_counts(scope) if {
	not data.mcp.platform.scope_issuers[scope]
	issuers.covered(null)
}

# METADATA
# title: The kinds that the token's scopes open
scoped_kinds := {kind |
	some scope in input.subject.scopes
	scope_counts(scope)
	some kind in data.mcp.platform.scopes[scope]
}

# METADATA
# title: The agent may use this server
agent_reaches(server) if {
	names.matches(agent.servers, server)
	names.matches(agent.deployments, data.mcp.platform.servers[server].deployment)
}

# METADATA
# title: The agent may not do this kind of thing
# scope: rule
# custom:
#   code: agent_ceiling
reasons contains {"code": "agent_ceiling", "source": "platform", "access": index} if {
	some kind in (touched.kinds - {kind | some kind in touched.kinds; kind in agent.kinds})
	some index, access in input.accesses
	access.kind == kind
}

# METADATA
# title: The agent may not use this server
# scope: rule
# custom:
#   code: agent_ceiling
reasons contains {"code": "agent_ceiling", "source": "platform", "access": null} if {
	routing.server != ""
	not agent_reaches(routing.server)
}

# METADATA
# title: A service speaks for itself, and its agent is not registered
# scope: rule
# custom:
#   code: agent_ceiling
reasons contains {"code": "agent_ceiling", "source": "platform", "access": null} if {
	input.subject.type == "service"
	not registered
}

# METADATA
# title: The token's scopes do not cover this kind of thing
# scope: rule
# custom:
#   code: scope_missing
reasons contains {"code": "scope_missing", "source": "platform", "access": index} if {
	some kind in (touched.kinds - scoped_kinds)
	some index, access in input.accesses
	access.kind == kind
}
