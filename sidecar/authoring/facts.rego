# Loaded beside a policy set by `mcp-sidecar decide` and `policy show`, never served: what the platform's own rules make
# of a question, and what a caller could be granted where.
package authoring.facts

import data.mcp.platform.ceilings
import data.mcp.platform.delegation
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.visible

routing_of_call := {
	"routes": [route.id | some route in data.mcp.platform.routes; routing.caller_fits(route)],
	"route": [route.id | route := routing.routes[0]],
	"server": routing.server,
	"deployment": [deployment | deployment := routing.deployment],
	"kinds": sort(routing.kinds),
	"agent_kinds": [kind | some kind in ceilings.agent.kinds],
	"agent_registered": count([true | data.mcp.platform.agents.registered[input.actor.id]]) > 0,
	"scoped_kinds": sort(ceilings.scoped_kinds),
}

holdings_of_call := [found |
	some index, _ in input.accesses
	found := {
		"owner": concat("", [held.owner | held := delegation.holding[index]]),
		"delegated": [entry | some entry in delegation.holding[index].delegated],
		"covered": index in delegation.covered,
	}
]

# Asked with {"question": …, "ways": […]}, because the platform's rules take no question with a key more.
permissions := answer if {
	ways := input.ways
	answer := {"rows": rows(ways), "own_rows": own_rows} with input as input.question
}

rows(ways) := [row |
	some index, grant in ways
	some at, route in visible.routes
	deployment := data.mcp.platform.servers[route.server].deployment
	some [table, name, held] in visible.holdings(deployment)
	held.owner == grant.owner
	visible.within(grant.databases, {"table": table, "name": name})
	some entry in held.delegated
	visible.meets(grant.collections, entry.collections)
	kinds := {kind | some kind in entry.kinds; kind in visible.kinds[at]; visible.listed(grant.kinds, {kind})}
	count(kinds) > 0
	row := {
		"way": index,
		"server": route.server,
		"route": route.id,
		"deployment": deployment,
		"table": table,
		"name": name,
		"kinds": sort(kinds),
		"delegated": entry.collections,
		"obligations": held.obligations,
	}
]

own_rows := [row |
	some at, route in visible.routes
	deployment := data.mcp.platform.servers[route.server].deployment
	some [table, name, held] in visible.holdings(deployment)
	held.owner == "platform"
	some entry in held.delegated
	some grant in data.mcp.platform.grants
	names.matches(grant.deployments, deployment)
	names.any_of(grant.groups, input.subject.groups)
	kinds := {kind | some kind in grant.kinds; kind in entry.kinds; kind in visible.kinds[at]}
	count(kinds) > 0
	row := {
		"grant": grant.id,
		"databases": grant.databases,
		"collections": grant.collections,
		"server": route.server,
		"route": route.id,
		"deployment": deployment,
		"table": table,
		"name": name,
		"kinds": sort(kinds),
		"obligations": held.obligations,
	}
]
