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
# title: What a team grants; an array of none or one
# description: >-
#   The owner "platform" is not a team: what belongs to the platform is granted by its own data, and a team folder of that
#   name is never read.
# scope: document
offers("platform", access) := [own_grants(access)]

offers(owner, access) := [offer | offer := data.mcp.teams[owner].grant with input as question(access)] if {
	owner != "platform"
}

# METADATA
# title: What there is to allow an access with; where the view alone is enough, the platform's word instead of the owner's grants
# description: The grant goes by a name of the platform's, so that the evidence does not say that the team granted it.
# scope: document
offered(_, access) := [{{"id": "platform.view-alone"}}] if views.alone(access)

offered(owner, access) := offers(owner, access) if not views.alone(access)

# METADATA
# title: What a team denies; an array of none or one
# scope: document
objections("platform", _) := []

objections(owner, access) := [objection | objection := data.mcp.teams[owner].deny with input as question(access)] if {
	owner != "platform"
}

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
# title: The accesses that the owner is asked about, by index
asked[index] := {
	"owner": found.owner,
	"obligations": delegation.obligations(found, access),
	"offers": offered(found.owner, access),
	"objections": objections(found.owner, access),
} if {
	some index, access in input.accesses
	found := delegation.held[index]
	delegation.covered(found, access)
}

# METADATA
# title: The grants that match, of owners whose answer has the right form, by index
granted[index] := {grant | some offer in asked[index].offers; some grant in offer} if {
	some index, _ in asked
	not index in malformed
}

# METADATA
# title: Accesses whose owner's answer is not of the contract
# scope: document
malformed contains index if {
	some index, answer in asked
	some offer in answer.offers
	not terms.sound_offer(offer)
}

malformed contains index if {
	some index, answer in asked
	some objection in answer.objections
	not is_set(objection)
}

# METADATA
# title: The approvals that each access asks for
approvals[index] := combination.approvals(granted[index], asked[index].obligations) if some index, _ in granted

# METADATA
# title: One entry per access, in order
answers := [answer |
	some index, _ in input.accesses
	answer := object.union_n([unspoken, owned(index), obliged(index)])
]

# METADATA
# title: An access of which nothing is known
unspoken := {"owner": "", "grants": [], "filter": null, "mask": [], "max_documents": null, "max_time_ms": null}

# METADATA
# title: The owner of an access, where there is one
owned(index) := {"owner": delegation.held[index].owner} if {
	delegation.held[index]
} else := {}

# METADATA
# title: The grants of an access and what they oblige to, where there are any
obliged(index) := object.union(
	combination.combined(granted[index], asked[index].obligations),
	{"grants": sort({grant.id | some grant in granted[index]})},
) if {
	count(granted[index]) > 0
} else := {}

# METADATA
# title: The owner's answer is not of the contract
# scope: rule
# custom:
#   code: team_policy_error
reasons contains {"code": "team_policy_error", "source": asked[index].owner, "access": index} if some index in malformed

# METADATA
# title: The owner denies
# scope: rule
# custom:
#   code: team_denied
reasons contains {"code": "team_denied", "source": answer.owner, "access": index} if {
	some index, answer in asked
	some objection in answer.objections
	is_set(objection)
	count(objection) > 0
}

# METADATA
# title: The owner grants nothing of the kind
# scope: rule
# custom:
#   code: not_granted
reasons contains {"code": "not_granted", "source": asked[index].owner, "access": index} if {
	some index, grants in granted
	count(grants) == 0
}
