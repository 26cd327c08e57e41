# METADATA
# title: How much a caller may use in a span of time
# description: >-
#   The entries of `data.mcp.platform.limits` that apply to this call. Here is decided which limits count and what each counts
#   by; the sidecar counts, and refuses a call whose limit is used up. Only an allow says them. No team has a part in it, so none
#   can raise a limit. A limit counts for tokens of every issuer: a caller cannot leave it by coming from another one.
# schemas:
#   - input: schema.input
package mcp.platform.budgets

import data.mcp.platform.delegation
import data.mcp.platform.input_check
import data.mcp.platform.names
import data.mcp.platform.views

# METADATA
# title: What is counted
amounts := ["calls", "documents", "bytes"]

# METADATA
# title: The most entries that the table may have
most_limits := 16

# METADATA
# title: The longest span of time, one day
longest := 86400

# METADATA
# title: The limits that fit the caller and the tool, in the order of the table
fitting := [limit |
	some limit in data.mcp.platform.limits
	names.any_of(limit.groups, input.subject.groups)
	names.any_of(limit.tools, {input.action.tool})
	names.matches(limit.agents, input.actor.id)
]

# METADATA
# title: The owners of everything that the call touches, the sources of declared views too
# scope: document
owners := owners_here if count(views.implied) == 0

owners := found if {
	count(views.implied) > 0
	found := owners_here with input as views.asked
}

# METADATA
# title: The owners of the accesses in the question
owners_here := {holding.owner | some holding in delegation.sound_holdings}

# METADATA
# title: The limits that apply to the call; one that counts by team is there once for each team that the call touches
applying := array.concat(
	[counted(limit, "") |
		some limit in fitting
		not "team" in limit.per
		names.any_of(limit.teams, owners)
	],
	[counted(limit, owner) |
		some limit in fitting
		"team" in limit.per
		some owner in owners
		names.any_of(limit.teams, {owner})
	],
)

# METADATA
# title: A limit as the sidecar is told it
counted(limit, owner) := object.union(
	{"id": limit.id, "per": limit.per, "team": owner, "window_s": limit.window_s},
	{amount: object.get(limit, amount, null) | some amount in amounts},
)

# METADATA
# title: The table is one that the rules were written for; it need not be there
# description: A limit that nobody can read would be none.
sound if {
	count([1 | table := data.mcp.platform.limits; not is_array(table)]) == 0
	count([limit | some limit in data.mcp.platform.limits; not sound_limit(limit)]) == 0
	count([1 | some limit in data.mcp.platform.limits]) <= most_limits
	count({limit.id | some limit in data.mcp.platform.limits}) == count([1 | some limit in data.mcp.platform.limits])
}

# METADATA
# title: A limit that says for whom it is, what it counts by, and how much there is
sound_limit(limit) if {
	is_object(limit)
	said := object.keys(limit) & {amount | some amount in amounts}
	count(said) > 0
	input_check.exactly(object.remove(limit, said), {"id", "per", "groups", "agents", "tools", "teams", "window_s"})
	input_check.named(limit.id)
	count([part | some part in ["groups", "agents", "tools", "teams"]; not some_names(limit[part])]) == 0
	input_check.strings(limit.per)
	count({part | some part in limit.per} - {"subject", "agent", "tool", "team"}) == 0
	positive(limit.window_s)
	limit.window_s <= longest
	count([amount | some amount in said; not positive(limit[amount])]) == 0
}

# METADATA
# title: An array of at least one string
some_names(value) if {
	input_check.strings(value)
	count(value) > 0
}

# METADATA
# title: A whole number from 1
positive(value) if {
	input_check.natural(value)
	value > 0
}
