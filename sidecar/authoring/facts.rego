# Loaded beside a policy set by `mcp-sidecar decide` and `policy show`, never served: what the platform's own rules make
# of a question, and what a caller could be granted where.
package authoring.facts

import data.mcp.platform.ceilings
import data.mcp.platform.delegation
import data.mcp.platform.guardrails
import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.step_up
import data.mcp.platform.terms
import data.mcp.platform.touched
import data.mcp.platform.verdicts
import data.mcp.platform.visible

routing_of_call := {
	"routes": [route.id | some route in data.mcp.platform.routes; routing.caller_fits(route)],
	"route": [route.id | route := routing.routes[0]],
	"server": routing.server,
	"deployment": [deployment | deployment := routing.deployment],
	"kinds": sort(touched.kinds),
	"agent_kinds": [kind | some kind in ceilings.agent.kinds],
	"agent_registered": count([true | ceilings.registered]) > 0,
	"scoped_kinds": sort(ceilings.scoped_kinds),
}

holdings_of_call := [found |
	some index, _ in input.accesses
	found := {
		"owner": concat("", [held.owner | held := delegation.holdings[index]]),
		"delegated": [entry | some entry in delegation.holdings[index].delegated],
		"covered": index in delegation.covered,
		"looked_up": count([true | routing.deployment]) > 0,
		"approvals": sort({code | some code in verdicts.approvals[index]}),
	}
]

# The traits of the command that are closed to this caller.
closed_traits := sort([trait |
	some trait in input.command.traits
	not guardrails.trait_open(trait)
	not guardrails.counted(trait)
])

# Asked with {"owner": …, "question": …}: the parts of the owner's grants that are not of the contract.
unsound := [found |
	owner := input.owner
	grants := data.mcp.teams[owner].grant with input as input.question
	some grant in grants
	not terms.sound_grant(grant)
	found := {"grant": name_of(grant), "parts": sort(unsound_parts(grant))}
]

name_of(grant) := grant.id if is_string(grant.id)

name_of(grant) := "" if {
	is_object(grant)
	not is_string(object.get(grant, "id", null))
}

name_of(grant) := "" if not is_object(grant)

unsound_parts(grant) := {"the grant is no object"} if not is_object(grant)

unsound_parts(grant) := ((ids | reserved) | unknown) | wrong if {
	is_object(grant)
	ids := {"id is missing, or not of its form" | not terms.identifier(object.get(grant, "id", null))}
	reserved := {"id begins with platform." | is_string(grant.id); startswith(grant.id, terms.reserved)}
	unknown := {sprintf("%v is no part of a grant", [part]) | some part, _ in grant; not part in (terms.parts | {"id"})}
	wrong := {sprintf("%s is empty or of another type: %s", [part, json.marshal(value)]) |
		some part, value in grant
		part in terms.parts
		not terms.sound(part, value)
	}
}

# Asked with {"question": …, "ways": […]}, because the platform's rules take no question with a key more.
permissions := answer if {
	ways := input.ways
	denies := input.denies
	answer := {
		"rows": rows(ways, denies),
		"own_rows": own_rows,
		"suspended": sort(suspended),
		"limits": limits_of_caller,
	} with input as input.question
}

# The limits on use that some call of this caller counts towards.
limits_of_caller := [limit |
	some limit in data.mcp.platform.limits
	names.any_of(limit.groups, input.subject.groups)
	names.matches(limit.agents, input.actor.id)
]

# As platform/guardrails.rego says it, and who it is.
suspended contains concat(" ", ["person", input.subject.id]) if {
	some subject in data.mcp.platform.suspended.subjects
	subject.issuer == input.subject.issuer
	subject.id == input.subject.id
}

suspended contains concat(" ", ["agent", agent]) if {
	some agent in array.concat([input.actor.id], input.actor.chain)
	names.matches(data.mcp.platform.suspended.agents, agent)
}

# The windows that bound one of the kinds in a database, or in one whose name begins so.
windows(table, name, kinds) := [entry |
	some window in data.mcp.platform.windows
	shared := {kind | some kind in window.kinds; kind in kinds}
	count(shared) > 0
	bounds(window.databases, table, name)
	entry := {
		"id": window.id,
		"kinds": sort(shared),
		"hours": window.hours,
		"lifted": count([true | guardrails.glass_broken(window.id)]) > 0,
	}
]

bounds(patterns, table, name) if {
	table in {"databases", "prefixes"}
	names.matches(patterns, name)
}

# What follows the prefix is not known: a pattern that could fit is one that fits.
bounds(patterns, "prefixes", name) if {
	some pattern in patterns
	startswith(pattern, name)
}

bounds(patterns, "prefixes", _) if {
	some pattern in patterns
	regex.match(`[*?\[{\\]`, pattern)
}

bounds(patterns, table, _) if {
	not table in {"databases", "prefixes"}
	names.matches(patterns, "")
}

rows(ways, denies) := [row |
	some index, grant in ways
	some at, route in visible.routes
	deployment := data.mcp.platform.servers[route.server].deployment
	some [table, name, held] in visible.holdings(deployment)
	held.owner == grant.owner
	visible.within(grant.databases, {"table": table, "name": name})
	in_globs(grant.database_globs, table, name)
	some entry in held.delegated
	issuers.counts(entry)
	visible.meets(grant.collections, entry.collections)
	kinds := {kind | some kind in entry.kinds; kind in visible.kinds[at]; visible.listed(grant.kinds, {kind})}
	some [part, lacks] in parts(route, deployment, kinds)
	row := {
		"lacks": lacks,
		"way": index,
		"server": route.server,
		"route": route.id,
		"deployment": deployment,
		"table": table,
		"name": name,
		"kinds": sort(part),
		"delegated": entry.collections,
		"obligations": held.obligations,
		"windows": windows(table, name, part),
		"denied": denied(denies, held.owner, table, name),
	}
]

# The kinds of a row, apart by what the token lacks for them: lists of scopes, of each of which it needs one.
parts(route, deployment, kinds) := {[part, lacks] |
	some some_kind in kinds
	lacks := lacking(route, some_kind)
	part := {kind |
		some kind in kinds
		lacking(route, kind) == lacks
		needless(deployment, kind, lacks) == false
	}
	count(part) > 0
}

# What is lacked on one way matters only where no other way lacks less.
needless(deployment, kind, lacks) := count([true |
	some at, route in visible.routes
	data.mcp.platform.servers[route.server].deployment == deployment
	kind in visible.kinds[at]
	less := {one | some one in lacking(route, kind)}
	less != {one | some one in lacks}
	count(less - {one | some one in lacks}) == 0
]) > 0

lacking(route, kind) := sort([sort(one) |
	some one in ways
	count([other | some other in ways; other != one; count(other - one) == 0]) == 0
]) if {
	ways := {way | some way in [for_kind(kind), for_route(route)]; count(way) > 0}
}

for_kind(kind) := set() if kind in ceilings.scoped_kinds

for_kind(kind) := {scope | some scope in step_up.known; kind in data.mcp.platform.scopes[scope]} if {
	not kind in ceilings.scoped_kinds
}

for_route(route) := set() if names.any_of(route.scopes, input.subject.scopes)

for_route(route) := {scope | some scope in route.scopes; scope in step_up.known} if {
	not names.any_of(route.scopes, input.subject.scopes)
}

# The denies that could hold in a place, by their index.
denied(denies, owner, table, name) := [index |
	some index, deny in denies
	deny.owner == owner
	visible.within(deny.databases, {"table": table, "name": name})
	in_globs(deny.database_globs, table, name)
]

# Each of the globs matches a database of the place, as far as that can be told of a prefix.
in_globs([], table, _) if table in {"whole", "targets"}

in_globs(globs, "databases", name) if {
	every glob in globs {
		names.matches([glob], name)
	}
}

in_globs(globs, "prefixes", name) if {
	every glob in globs {
		could_begin(glob, name)
	}
}

could_begin(glob, prefix) if startswith(glob, prefix)

could_begin(glob, prefix) if startswith(prefix, regex.split(`[*?\[{\\]`, glob)[0])

own_rows := [row |
	some at, route in visible.routes
	deployment := data.mcp.platform.servers[route.server].deployment
	some [table, name, held] in visible.holdings(deployment)
	held.owner == "platform"
	some entry in held.delegated
	issuers.counts(entry)
	some grant in data.mcp.platform.grants
	issuers.counts(grant)
	names.matches(grant.deployments, deployment)
	names.any_of(grant.groups, input.subject.groups)
	kinds := {kind | some kind in grant.kinds; kind in entry.kinds; kind in visible.kinds[at]}
	some [part, lacks] in parts(route, deployment, kinds)
	row := {
		"lacks": lacks,
		"grant": grant.id,
		"databases": grant.databases,
		"collections": grant.collections,
		"names": object.get(grant, "names", null),
		"server": route.server,
		"route": route.id,
		"deployment": deployment,
		"table": table,
		"name": name,
		"kinds": sort(part),
		"obligations": held.obligations,
		"windows": windows(table, name, part),
	}
]

# Asked with {"database": …, "collection": …}, null for all collections: who owns it, and each way through the platform's
# data that is open to some caller.
reach := {
	"held": [{"deployment": deployment, "owner": held.owner} |
		some deployment, _ in data.mcp.platform.deployments
		held := held_in(deployment)
	],
	"mongodbs_own": count([true | mongodbs_own]) > 0,
	"ways": ways_there,
	"suspended": object.union({"subjects": [], "agents": []}, data.mcp.platform.suspended),
	"views": views_alone,
}

mongodbs_own if lower(input.database) in guardrails.system_databases

mongodbs_own if {
	is_string(input.collection)
	startswith(lower(input.collection), "system.")
}

# The declared views whose callers need no grant on what they read here.
views_alone := sort({sprintf("%s.%s", [database, name]) |
	some deployment, _ in data.mcp.platform.deployments
	some database, views in data.mcp.platform.deployments[deployment].views
	some name, view in views
	view.alone == true
	some source in view.sources
	source.database == input.database
	source_asked(source)
})

source_asked(_) if input.collection == null

source_asked(source) if source.collection == input.collection

held_in(deployment) := delegation.of_target(deployment, input.target)

held_in(deployment) := data.mcp.platform.deployments[deployment].databases[input.database]

held_in(deployment) := data.mcp.platform.deployments[deployment].prefixes[longest] if {
	not data.mcp.platform.deployments[deployment].databases[input.database]
	declared := [name |
		some name, _ in data.mcp.platform.deployments[deployment].prefixes
		name != ""
		startswith(input.database, name)
	]
	most := max([count(name) | some name in declared])
	some longest in declared
	count(longest) == most
}

# One for each route and each list of issuers of what is delegated; null where an entry lists none.
ways_there := [way |
	some route in data.mcp.platform.routes
	deployment := data.mcp.platform.servers[route.server].deployment
	held := held_in(deployment)
	some listed in {object.get(entry, "issuers", null) | some entry in held.delegated}
	kinds := {kind |
		some entry in held.delegated
		object.get(entry, "issuers", null) == listed
		names_asked(entry.collections)
		some kind in entry.kinds
		kind in route.kinds
		kind_asked(kind)
		not kind in data.mcp.platform.refused_kinds
	}
	count(kinds) > 0
	way := {
		"owner": held.owner,
		"deployment": deployment,
		"server": route.server,
		"route": route.id,
		"kinds": sort(kinds),
		"groups": route.groups,
		"scopes": route.scopes,
		"issuers": [object.get(route, "issuers", null), listed],
		"scopes_open": data.mcp.platform.scopes,
		"scope_issuers": scope_issuers,
		"agents_may": agents_there(route, deployment),
		"agents_issuers": {agent: object.get(entry, "issuers", null) |
			some agent, entry in object.union(data.mcp.platform.agents.registered, {"*": data.mcp.platform.agents["default"]})
		},
		"obligations": held.obligations,
		"windows": windows("databases", input.database, kinds),
		"grants": [object.union(grant, {"index": index}) |
			held.owner == "platform"
			some index, grant in data.mcp.platform.grants
			names.matches(grant.deployments, deployment)
			names.matches(grant.databases, input.database)
			names_asked(grant.collections)
			verdicts.on_target(grant, object.get(input, ["target", "id"], ""))
		],
	}
]

scope_issuers[scope] := null if {
	some scope, _ in data.mcp.platform.scopes
	not data.mcp.platform.scope_issuers[scope]
}

scope_issuers[scope] := listed if some scope, listed in data.mcp.platform.scope_issuers

# Asked with a list of names: the agents among them that are suspended.
suspended_agents := [agent | some agent in input; names.matches(data.mcp.platform.suspended.agents, agent)]

# What is outside of the catalog is executed and nothing else.
kind_asked(_) if not input.target

kind_asked("execute") if input.target

names_asked(_) if input.collection == null

names_asked(patterns) if names.matches(patterns, input.collection)

# "*" stands for every agent that is not registered.
agents_there(route, deployment) := object.union(
	{agent: entry.kinds |
		some agent, entry in data.mcp.platform.agents.registered
		names.matches(route.agents, agent)
		names.matches(entry.servers, route.server)
		names.matches(entry.deployments, deployment)
	},
	{pattern: entry.kinds |
		entry := data.mcp.platform.agents["default"]
		names.matches(entry.servers, route.server)
		names.matches(entry.deployments, deployment)
		some pattern in route.agents
		not data.mcp.platform.agents.registered[pattern]
	},
)
