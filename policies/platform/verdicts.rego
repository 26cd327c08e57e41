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
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.terms
import data.mcp.platform.views

# METADATA
# title: The question as a team sees it
question(access) := object.union(object.remove(input, ["accesses"]), {"access": access})

# METADATA
# title: What the owner says of the one access that the input is about
# description: Both answers are arrays of none or one, so that one that is not defined is still seen.
heard(team) := {"offers": [offer | offer := data.mcp.teams[team].grant], "objections": objected(team)}

# METADATA
# title: What the owner denies of the one access that the input is about
objected(team) := [objection | objection := data.mcp.teams[team].deny]

# METADATA
# title: What the owner of each access says of it, by index
# description: >-
#   The owner "platform" is not a team: what belongs to the platform is granted by its own data, and a team folder of that
#   name is never read.
# scope: document
said := {index: answer |
	some index in delegation.covered
	answer := statement(delegation.held[index].owner, input.accesses[index], index in views.alone)
}

# METADATA
# title: What there is to allow an access with, and what the owner says against it
# description: >-
#   Where a view alone is enough, that is the platform's word and not the owner's grants, which are not even looked at. It goes
#   by a name of the platform's, so that the evidence does not say that the team granted it.
# scope: document
statement(owner, access, false) := answer if {
	owner != "platform"
	answer := heard(owner) with input as question(access)
}

statement(owner, access, true) := {"offers": [vouched], "objections": objections} if {
	owner != "platform"
	objections := objected(owner) with input as question(access)
}

statement("platform", access, false) := {"offers": [own_grants(access)], "objections": []}

statement("platform", _, true) := {"offers": [vouched], "objections": []}

# METADATA
# title: The grant that stands for a view that is enough alone
vouched := {{"id": "platform.view-alone"}}

# METADATA
# title: What the platform's data grants on what the platform itself owns
own_grants(access) := {{"id": grant.id} |
	some grant in data.mcp.platform.grants
	access.kind in grant.kinds
	names.matches(grant.deployments, routing.deployment)
	names.matches(grant.databases, access.database)
	names.matches(grant.collections, access.collection)
	names.any_of(grant.groups, input.subject.groups)
}

# METADATA
# title: The grants that match, of owners whose answer has the right form, by index
granted := {index: grants |
	some index, answer in said
	not index in malformed
	grants := {grant | some offer in answer.offers; some grant in offer}
}

# METADATA
# title: The platform's own obligations on each access, by index
obligations := {index: obliging |
	some index in delegation.covered
	access := input.accesses[index]
	obliging := [obligation |
		some obligation in delegation.held[index].obligations
		access.kind in obligation.kinds
		names.matches(obligation.collections, access.collection)
	]
}

# METADATA
# title: The accesses that somebody granted without any condition, and on which the platform lays none
# description: Most of them; there is nothing to combine. A grant that says only what it is called stands above all others.
unconditional contains index if {
	some index, grants in granted
	count(obligations[index]) == 0
	some grant in grants
	object.keys(grant) == {"id"}
}

# METADATA
# title: Accesses whose owner's answer is not of the contract
# scope: document
malformed contains index if {
	some index, answer in said
	some offer in answer.offers
	not terms.sound_offer(offer)
}

malformed contains index if {
	some index, answer in said
	some objection in answer.objections
	not is_set(objection)
}

# METADATA
# title: The approvals that each access asks for
approvals := {index: codes |
	some index, grants in granted
	not index in unconditional
	codes := combination.approvals(grants, obligations[index])
}

# METADATA
# title: One entry per access, in order
answers := [answer |
	some index, _ in input.accesses
	owner := object.get(delegation.held, [index, "owner"], "")
	grants := sort({grant.id | some grant in granted[index]})
	answer := object.union({"owner": owner, "grants": grants}, object.get(obliged, index, free))
]

# METADATA
# title: Nothing that an allow obliges to
free := {"filter": null, "mask": [], "max_documents": null, "max_time_ms": null}

# METADATA
# title: What the accesses that are granted under conditions oblige to
obliged := {index: combined |
	some index, grants in granted
	count(grants) > 0
	not index in unconditional
	combined := combination.combined(grants, obligations[index])
}

# METADATA
# title: The owner's answer is not of the contract
# scope: rule
# custom:
#   code: team_policy_error
reasons contains {"code": "team_policy_error", "source": delegation.held[index].owner, "access": index} if some index in malformed

# METADATA
# title: The owner denies
# scope: rule
# custom:
#   code: team_denied
reasons contains {"code": "team_denied", "source": delegation.held[index].owner, "access": index} if {
	some index, answer in said
	some objection in answer.objections
	is_set(objection)
	count(objection) > 0
}

# METADATA
# title: The owner grants nothing of the kind
# scope: rule
# custom:
#   code: not_granted
reasons contains {"code": "not_granted", "source": delegation.held[index].owner, "access": index} if {
	some index, grants in granted
	count(grants) == 0
}
