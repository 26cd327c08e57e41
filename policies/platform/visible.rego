# METADATA
# title: What a caller may see in a list of tools
# description: >-
#   A tool shows if everything that each of its calls needs could be allowed on one server: a route of this caller covers it, the
#   agent reaches it, it is not closed to everybody, the platform delegated it to an owner in that server's deployment, and that
#   owner could still grant it. Scopes that the token lacks count as well: a call that lacks them says so, and the client can
#   ask for them. What the owners could grant is `possible`: what partial evaluation left of their grants, or null where that
#   cannot be had; then every delegation counts as granted. Denies, windows and obligations are not looked at: to show too
#   much is harmless, the call is decided anyway.
# schemas:
#   - input: schema.visibility
package mcp.platform.visible

import data.mcp.platform.ceilings
import data.mcp.platform.configuration
import data.mcp.platform.delegation
import data.mcp.platform.guardrails
import data.mcp.platform.input_check
import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.step_up
import data.mcp.platform.verdicts

# METADATA
# title: The routes of this caller that lead somewhere
# description: Also asked by partial evaluation, which knows the subject and the actor and nothing else.
open_routes := [route |
	some route in data.mcp.platform.routes
	data.mcp.platform.servers[route.server].deployment
	routing.caller_could_fit(route)
	step_up.within_reach(route)
	ceilings.agent_reaches(route.server)
]

# METADATA
# title: The routes, of a question that is to be answered
routes := [route |
	input_check.valid_visibility
	configuration.sound
	count([reason | some reason in guardrails.reasons; reason.code == "suspended"]) == 0
	some route in open_routes
]

# METADATA
# title: The servers that this caller's calls can go to
servers := {route.server | some route in routes}

# METADATA
# title: Everything that is owned in the deployment, with the table and the name under which it stands
# scope: document
holdings(deployment) := exact | whole if {
	exact := {[table, name, held] |
		some table in ["targets", "prefixes", "databases"]
		some name, held in data.mcp.platform.deployments[deployment][table]
	}
	whole := {["whole", "", held] | held := data.mcp.platform.deployments[deployment].whole}
}

# METADATA
# title: The owners in the deployments that this caller can reach
# description: Whose grants partial evaluation looks at.
owners contains held.owner if {
	some route in open_routes
	some [_, _, held] in holdings(data.mcp.platform.servers[route.server].deployment)
}

# METADATA
# title: The kinds that could be allowed to this caller on a route, by the route's place in the list
kinds[index] := {kind |
	some kind in route.kinds
	kind in ceilings.agent.kinds
	kind in step_up.kinds_within_reach
	not kind in data.mcp.platform.refused_kinds
	delegated(data.mcp.platform.servers[route.server].deployment, kind)
} if {
	some index, route in routes
}

# METADATA
# title: The platform delegated the kind in the deployment to a team that could grant it
delegated(deployment, kind) if {
	some [table, name, held] in holdings(deployment)
	some entry in held.delegated
	issuers.counts(entry)
	kind in entry.kinds
	grantable(held.owner, {"deployment": deployment, "table": table, "name": name, "collections": entry.collections}, kind)
}

# METADATA
# title: The platform delegated the kind on one target to a team that could grant it there
delegated_target(deployment, target, kind) if {
	held := delegation.of_target(deployment, target)
	some entry in held.delegated
	issuers.counts(entry)
	kind in entry.kinds
	names.matches(entry.collections, "")
	grantable_target(held.owner, deployment, target, kind)
}

# METADATA
# title: The owner could grant the kind on the target
# scope: document
grantable_target("platform", deployment, target, kind) if {
	some grant in data.mcp.platform.grants
	issuers.counts(grant)
	kind in grant.kinds
	names.matches(grant.deployments, deployment)
	names.matches(grant.databases, "")
	names.matches(grant.collections, "")
	names.any_of(grant.groups, input.subject.groups)
	verdicts.on_target(grant, target.id)
}

grantable_target(owner, _, _, _) if {
	owner != "platform"
	input.possible == null
}

grantable_target(owner, _, target, kind) if {
	owner != "platform"
	some grant in input.possible
	grant.owner == owner
	listed(grant.kinds, {kind})
	listed(grant.databases, {""})
	listed(grant.collections, {""})
	listed(grant.targets, {target.id})
}

# METADATA
# title: The owner could grant the kind at the place
# scope: document
grantable("platform", place, kind) if {
	some grant in data.mcp.platform.grants
	issuers.counts(grant)
	kind in grant.kinds
	names.matches(grant.deployments, place.deployment)
	names.any_of(grant.groups, input.subject.groups)
}

grantable(owner, _, _) if {
	owner != "platform"
	input.possible == null
}

grantable(owner, place, kind) if {
	owner != "platform"
	some grant in input.possible
	grant.owner == owner
	listed(grant.kinds, {kind})
	within(grant.databases, place)
	meets(grant.collections, place.collections)
}

# METADATA
# title: One of the values is listed; null lists everything
# scope: document
listed(null, _) := true

listed(values, wanted) if {
	some value in values
	value in wanted
}

# METADATA
# title: One of the databases lies at the place; null is every database
# description: What concerns the whole deployment, and what is no namespace, has no database.
# scope: document
within(null, _) := true

within(databases, place) if {
	place.table == "databases"
	place.name in databases
}

within(databases, place) if {
	place.table == "prefixes"
	place.name != ""
	some database in databases
	startswith(database, place.name)
}

within(databases, place) if {
	place.table in {"whole", "targets"}
	"" in databases
}

# METADATA
# title: One of the collections matches a pattern; null is every collection
# scope: document
meets(null, _) := true

meets(collections, patterns) if {
	some collection in collections
	names.matches(patterns, collection)
}

# METADATA
# title: The tools that show
# scope: document
tools contains name if {
	some name, tool in input.tools
	not tool.target
	count(tool.needs) > 0
	some index, _ in routes
	count({kind | some kind in tool.needs} - kinds[index]) == 0
}

# A tool that is nothing but itself shows if it itself could be granted, not merely something of its kind.
tools contains name if {
	some name, tool in input.tools
	tool.target
	count(tool.needs) > 0
	some index, route in routes
	count({kind | some kind in tool.needs} - kinds[index]) == 0
	deployment := data.mcp.platform.servers[route.server].deployment
	count([kind | some kind in tool.needs; not delegated_target(deployment, tool.target, kind)]) == 0
}

# A tool of which no kind is sure shows with any that it may need.
tools contains name if {
	some name, tool in input.tools
	count(tool.needs) == 0
	some index, _ in routes
	some kind in tool.may_need
	kind in kinds[index]
}
