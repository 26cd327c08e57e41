# METADATA
# title: Which scopes a refused call lacks
# description: >-
#   A token with more scopes is worth asking for only where it would make this very call allowed. So the call is decided once
#   more as if the token had them, and nothing is offered unless that is an allow. What is offered opens the fewest kinds of
#   access that the token does not open already; among equals it is the fewest scopes, and then the first by name. Only
#   scopes that count in tokens of the caller's issuer are looked at, and none of it where the token lacks nothing.
# schemas:
#   - input: schema.input
package mcp.platform.step_up

import data.mcp.main
import data.mcp.platform.ceilings
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.touched

# METADATA
# title: The form of a scope (RFC 6749 section 3.3); another one cannot be asked for
form := `^[!#-\[\]-~]{1,128}$`

# METADATA
# title: How many sets are kept at each step of the search, the best ones
kept := 8

# METADATA
# title: How many routes' demands are tried, the best ones first
tried := 3

# METADATA
# title: The scopes to ask for, and those that the token has already and the platform knows
# description: The second list is for clients that ask for a new token with exactly what they are told.
offer := {"missing": found[0], "held": sort({scope | some scope in input.subject.scopes; scope in known})}

# METADATA
# title: Of the best sets, those with which the call is allowed, the best one first
found := [scopes |
	some [_, _, scopes] in array.slice(sort(best), 0, tried)
	larger := array.concat(input.subject.scopes, scopes)
	main.judged.allow with input.subject.scopes as larger
]

# METADATA
# title: The scopes that can be asked for
known := {scope |
	some scope in ({name | some name, _ in data.mcp.platform.scopes} | demanded)
	is_string(scope)
	regex.match(form, scope)
	ceilings.scope_counts(scope)
}

# METADATA
# title: The scopes that routes demand
demanded := {scope | some route in data.mcp.platform.routes; some scope in route.scopes} - {"*"}

# METADATA
# title: The kinds that the token opens, and those that it would with more scopes
kinds_within_reach := ceilings.scoped_kinds | {kind | some scope in known; some kind in data.mcp.platform.scopes[scope]}

# METADATA
# title: A route that takes the token as it is, or with one scope more
# scope: document
within_reach(route) if names.any_of(route.scopes, input.subject.scopes)

within_reach(route) if {
	some scope in route.scopes
	scope in known
}

# METADATA
# title: The kinds of the call that the token does not open
closed_kinds := touched.kinds - ceilings.scoped_kinds

# METADATA
# title: The routes that could take the call, in order
routes := [route |
	some route in data.mcp.platform.routes
	count([kind | some kind in touched.kinds; kind in route.kinds]) == count(touched.kinds)
	routing.caller_could_fit(route)
]

# METADATA
# title: The places of the routes that the token's scopes fit already
fitting := [index | some index, route in routes; names.any_of(route.scopes, input.subject.scopes)]

# METADATA
# title: What of scopes the routes demand, each way once; nothing where the token's scopes fit already
# description: >-
#   A route behind one that fits already is never taken. A route whose server the agent does not reach takes the call nowhere.
#   And a scope that an earlier route takes too leads to that one, so it is demanded there and not here.
demands contains demand if {
	some index, route in routes
	not index in fitting
	count([other | some other in fitting; other < index]) == 0
	ceilings.agent_reaches(route.server)
	earlier := {scope | some other in array.slice(routes, 0, index); some scope in other.scopes}
	demand := {scope | some scope in route.scopes} - earlier
	count(demand) > 0
}

demands contains set() if count(fitting) > 0

# METADATA
# title: The best set of scopes for each demand
# description: As its rank, which is how many kinds it opens, how many scopes it has, and the scopes in order of name.
best contains [opened, size, scopes] if {
	some demand in demands
	parts := sort(closed_kinds | {"" | count(demand) > 0})
	count(parts) > 0
	offers := offers_for(demand)
	four := by_four([[0, 0, [], set(), set()]], parts, 0, offers)
	eight := by_four(four, parts, 4, offers)
	twelve := by_four(eight, parts, 8, offers)
	[opened, size, scopes, _, _] := by_four(twelve, parts, 12, offers)[0]
}

# METADATA
# title: The scopes that can be asked for, by the kinds that each would open besides
by_kinds[opened] contains scope if {
	some scope in known
	opened := {kind | some kind in data.mcp.platform.scopes[scope]} - ceilings.scoped_kinds
}

# METADATA
# title: What helps under a demand, each as what it opens, the parts that it gives and the scope
# description: The empty name is the part that a route demands. Of scopes that come to the same there is the first by name.
offers_for(demand) := {[opened, given, min(alike)] |
	some opened, scopes in by_kinds
	some [routed, alike] in [[{""}, scopes & demand], [set(), scopes - demand]]
	given := (opened & closed_kinds) | routed
	count(given) > 0
}

# METADATA
# title: Sets that also give the next four parts
# description: Rego has no recursion; there are thirteen kinds and one route.
by_four(sets, parts, next, offers) := fourth if {
	first := grown(sets, parts, next, offers)
	second := grown(first, parts, next + 1, offers)
	third := grown(second, parts, next + 2, offers)
	fourth := grown(third, parts, next + 3, offers)
}

# METADATA
# title: Sets that also give one part, the best ones
# description: A set is its rank, what it opens, and the parts that it gives.
# scope: document
grown(sets, parts, index, _) := sets if index >= count(parts)

grown(sets, parts, index, offers) := array.slice(sort(all), 0, kept) if {
	index < count(parts)
	all := {larger |
		some chosen in sets
		some larger in with_part(chosen, parts[index], offers)
	}
}

# METADATA
# title: A set as it is where it gives a part already, else with each scope that does
# scope: document
with_part(chosen, part, _) := {chosen} if part in chosen[4]

with_part(chosen, part, offers) := {[count(opened), count(scopes), scopes, opened, given] |
	some [opens, gives, scope] in offers
	part in gives
	scopes := sort({name | some name in chosen[2]} | {scope})
	opened := chosen[3] | opens
	given := chosen[4] | gives
} if {
	not part in chosen[4]
}
