# METADATA
# title: How much a caller may use in a span of time
# description: >-
#   The entries of `data.mcp.platform.limits` that apply to this call. Here is decided which limits count and what each counts
#   by; the sidecar counts, and refuses a call whose limit is used up. Only an allow says them. No team has a part in it, so none
#   can raise a limit. A limit counts for tokens of every issuer: a caller cannot leave it by coming from another one.
# schemas:
#   - input: schema.input
package mcp.platform.budgets

import data.mcp.platform.configuration
import data.mcp.platform.delegation
import data.mcp.platform.names
import data.mcp.platform.views

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
	{amount: object.get(limit, amount, null) | some amount in configuration.amounts},
)
