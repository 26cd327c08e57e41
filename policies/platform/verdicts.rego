# METADATA
# title: What the owner says of each access
# description: >-
#   The owner's grants and denies are evaluated with the input replaced by the question about that one access: a team never
#   sees the others. Only the owner's package is evaluated, so a team whose policy fails (a conflict, or a builtin error under
#   strict errors) makes questions about its own databases fail and no others.
# schemas:
#   - input: schema.input
package mcp.platform.verdicts

import data.mcp.platform.combination
import data.mcp.platform.delegation
import data.mcp.platform.filters
import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.terms
import data.mcp.platform.views

# METADATA
# title: The question as a team sees it
question(access) := {
	"v": input.v,
	"subject": input.subject,
	"actor": input.actor,
	"action": input.action,
	"access": access,
	"command": input.command,
	"context": input.context,
}

# METADATA
# title: What the owner of each access says of it, by index, as `{grant, deny}`; what is not defined is not there
# description: >-
#   The owner "platform" is not a team: what belongs to the platform is granted by its own data, and a team folder of that
#   name is never read. Where a view alone is enough, that is the platform's word and not the owner's grants, which are not even
#   looked at; it goes by a name of the platform's, so that the evidence does not say that the team granted it.
statements := object.union_n([team_statements, view_statements, view_objections, platform_statements])

# METADATA
# title: What the teams say
team_statements := {index: answer |
	some index in (delegation.covered - views.alone)
	team := delegation.sound_holdings[index].owner
	team != "platform"
	asked := question(input.accesses[index])
	answer := statement(team) with input as asked
}

# METADATA
# title: What a team says of the one access that the input is about
# description: By the names of its two rules, so that OPA knows that no other rule of the team's is ever evaluated here.
statement(team) := object.union(granting, denying) if {
	granting := {"grant": value | value := data.mcp.teams[team].grant}
	denying := {"deny": value | value := data.mcp.teams[team].deny}
}

# METADATA
# title: What the platform says of views that are enough alone
view_statements := {index: {"grant": {{"id": "platform.view-alone"}}} | some index in (delegation.covered & views.alone)}

# METADATA
# title: What the teams that own the sources of such views say against it
view_objections := {index: {"deny": value} |
	some index in (delegation.covered & views.alone)
	team := delegation.sound_holdings[index].owner
	team != "platform"
	asked := question(input.accesses[index])
	value := data.mcp.teams[team].deny with input as asked
}

# METADATA
# title: What the platform's data grants on what the platform itself owns
platform_statements := {index: {"grant": own_grants(input.accesses[index])} |
	some index in (delegation.covered - views.alone)
	delegation.sound_holdings[index].owner == "platform"
}

# METADATA
# title: The grants of the platform's data that fit an access
own_grants(access) := {object.union({"id": grant.id}, object.filter(grant, ["names"])) |
	some grant in data.mcp.platform.grants
	issuers.counts(grant)
	access.kind in grant.kinds
	names.matches(grant.deployments, routing.deployment)
	names.matches(grant.databases, access.database)
	names.matches(grant.collections, access.collection)
	names.any_of(grant.groups, input.subject.groups)
	on_target(grant, object.get(access, ["target", "id"], ""))
}

# METADATA
# title: The grant is about the target; one that names none is about all of them
# scope: document
on_target(grant, _) if not grant.targets

on_target(grant, id) if names.matches(grant.targets, id)

# METADATA
# title: The sets of grants, of owners whose answer is one; empty where there is none
offers := {index: grants |
	some index, answer in statements
	grants := object.get(answer, "grant", set())
	is_set(grants)
	count(grants) <= terms.most_grants
}

# METADATA
# title: All that was granted on any access
offered := union({grants | some grants in offers})

# METADATA
# title: The grants that say only what they are called
plain := terms.plain(offered)

# METADATA
# title: The grants that are not of the contract
unsound := {grant | some grant in (offered - plain); not terms.sound_grant(grant)}

# METADATA
# title: The grants of that kind that are called like the platform's
# description: The platform's own are among them; what makes one unsound is that a team says it.
borrowed := {grant | some grant in plain; startswith(grant.id, terms.reserved)}

# METADATA
# title: What was denied, of the accesses whose owner denies anything, by index
denied := {index: answer.deny | some index, answer in statements; answer.deny != set()}

# METADATA
# title: Accesses whose owner's answer is not of the contract
# scope: document
malformed contains index if some index in (object.keys(statements) - object.keys(offers))

malformed contains index if {
	some grant in unsound
	some index, grants in offers
	grant in grants
}

malformed contains index if {
	some grant in borrowed
	some index, answer in team_statements
	grant in answer.grant
}

malformed contains index if {
	some index, denial in denied
	not is_set(denial)
}

# METADATA
# title: The grants whose filter cannot be used
# description: A claim that it was made of is missing, or is more than a value; so they grant nothing.
unusable := {grant |
	some grant in (offered - plain)
	grant.filter
	not filters.usable(grant.filter)
}

# METADATA
# title: The grants that match, of owners whose answer has the right form, by index
# scope: document
granted := object.remove(offers, malformed) if count(unusable) == 0

granted := {index: usable |
	some index, grants in object.remove(offers, malformed)
	usable := grants - unusable
} if {
	count(unusable) > 0
}

# METADATA
# title: The accesses of which no grant speaks
ungranted := {index | some index, grants in granted; grants == set()}

# METADATA
# title: The platform's own obligations on each access, by index
obligations[index] contains obligation if {
	some index in delegation.covered
	some obligation in delegation.sound_holdings[index].obligations
	access := input.accesses[index]
	access.kind in obligation.kinds
	names.matches(obligation.collections, access.collection)
}

# METADATA
# title: The accesses with a grant under conditions only, or on which the platform lays a condition
# description: >-
#   A shortcut: these are few, and on the others there is nothing to combine. A grant that says only what it is called stands
#   above all others.
# scope: document
conditional contains index if {
	some index, _ in obligations
	granted[index] != set()
}

conditional contains index if {
	some grant in (offered - plain)
	some index, grants in granted
	grant in grants
	grants & plain == set()
}

# METADATA
# title: The approvals that each access asks for
approvals := {index: codes |
	some index in conditional
	codes := combination.approvals(granted[index], object.get(obligations, index, set()))
	codes != set()
}

# METADATA
# title: One entry per access, in order
answers := [answer |
	some index, _ in input.accesses
	owner := object.get(delegation.sound_holdings, [index, "owner"], "")
	grants := sort({grant.id | some grant in granted[index]})
	answer := object.union({"owner": owner, "grants": grants}, object.get(obliged, index, free))
]

# METADATA
# title: Nothing that an allow obliges to
free := {"filter": null, "mask": [], "max_documents": null, "max_time_ms": null}

# METADATA
# title: What the accesses that are granted under conditions oblige to
obliged := {index: combined |
	some index in conditional
	combined := combination.combined(granted[index], object.get(obligations, index, set()))
}

# METADATA
# title: The owner's answer is not of the contract
# scope: rule
# custom:
#   code: team_policy_error
reasons contains {"code": "team_policy_error", "source": delegation.sound_holdings[index].owner, "access": index} if some index in malformed

# METADATA
# title: The owner denies
# scope: rule
# custom:
#   code: team_denied
reasons contains {"code": "team_denied", "source": delegation.sound_holdings[index].owner, "access": index} if {
	some index, denial in denied
	is_set(denial)
}

# METADATA
# title: The owner grants nothing of the kind
# scope: rule
# custom:
#   code: not_granted
reasons contains {"code": "not_granted", "source": delegation.sound_holdings[index].owner, "access": index} if some index in ungranted
