# METADATA
# title: What the agent and the token may do at most
# description: >-
#   Both must be allowed: the user by grants, and the agent and the token's scopes by these ceilings. An agent that is not
#   registered has the default ceiling, which may be nothing. A scope that is not mapped opens nothing.
# schemas:
#   - input: schema.input
package mcp.platform.ceilings

import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.touched

# METADATA
# title: The ceiling of the agent that acts
# scope: document
agent := data.mcp.platform.agents.registered[input.actor.id]

agent := data.mcp.platform.agents["default"] if not data.mcp.platform.agents.registered[input.actor.id]

# METADATA
# title: The kinds that the token's scopes open
scoped_kinds := {kind |
	some scope in input.subject.scopes
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
# title: The token's scopes do not cover this kind of thing
# scope: rule
# custom:
#   code: scope_missing
reasons contains {"code": "scope_missing", "source": "platform", "access": index} if {
	some kind in (touched.kinds - scoped_kinds)
	some index, access in input.accesses
	access.kind == kind
}
