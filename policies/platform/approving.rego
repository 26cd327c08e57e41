# METADATA
# title: May this person give the approval that a call of another person waits for
# description: >-
#   The question is about the accesses that wait, with the server that the call goes to and who made it. Two must agree: the
#   platform's table `approvers` says which people may approve for which team, through which client and with which scope, and
#   the team's rule `approver` says who of them does. What the platform owns itself needs the table only. Everything that is not
#   named in both is refused.
# schemas:
#   - input: schema.approving
package mcp.platform.approving

import data.mcp.platform.configuration
import data.mcp.platform.delegation
import data.mcp.platform.guardrails
import data.mcp.platform.input_check
import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.views

# METADATA
# title: The question is well-formed
# scope: document
default valid := false

valid if {
	is_object(input)
	object.keys(input) == {"v", "subject", "actor", "action", "server", "requester", "accesses", "context"}
	input_check.asked
	input.action == {"method": "approvals"}
	input_check.named(input.server)
	input_check.exactly(input.requester, {"issuer", "id", "agent"})
	input_check.named(input.requester.issuer)
	input_check.named(input.requester.id)
	input_check.named(input.requester.agent)
	is_array(input.accesses)
	count(input.accesses) > 0
	count(input.accesses) <= input_check.most_accesses
	input_check.well_formed
}

# METADATA
# title: The approver may approve
# description: A person, who is not the one that asks, through whichever client and agent either of the two comes.
# scope: document
default may := false

may if {
	valid
	configuration.sound
	input.subject.type == "user"
	count({part | some part in ["issuer", "id"]; input.subject[part] != input.requester[part]}) > 0
	count({1 | some reason in guardrails.reasons; reason.code == "suspended"}) == 0
	count(accesses) > 0
	count(approvable) == count(accesses)
}

# METADATA
# title: Where the call goes
deployment := data.mcp.platform.servers[input.server].deployment

# METADATA
# title: The accesses that wait, and those that they imply through declared views
# description: The approvals of an implied access are put on the view; so its owner's approver is asked for as well.
accesses := found if {
	found := views.asked.accesses with data.mcp.platform.routing.deployment as deployment
}

# METADATA
# title: Who owns what each of them touches
holdings := found if {
	all := object.union(input, {"accesses": accesses})
	found := delegation.sound_holdings with input as all with data.mcp.platform.routing.deployment as deployment
}

# METADATA
# title: The accesses that this person may approve
approvable contains index if {
	some index, access in accesses
	owner := holdings[index].owner
	some entry in data.mcp.platform.approvers
	fits(entry, owner, access.kind)
	index in agreed
}

# METADATA
# title: An entry of the platform's table fits the person, the team and the kind
fits(entry, owner, kind) if {
	issuers.counts(entry)
	names.any_of(entry.teams, {owner})
	kind in entry.kinds
	names.any_of(entry.groups, input.subject.groups)
	names.matches(entry.agents, input.actor.id)
	names.any_of(entry.scopes, input.subject.scopes)
}

# METADATA
# title: The accesses whose owner names this person
# scope: document
agreed contains index if {
	some index, _ in accesses
	holdings[index].owner == "platform"
}

agreed contains index if {
	some index, access in accesses
	team := holdings[index].owner
	team != "platform"
	asked := question(access)
	approvers := said(team) with input as asked
	is_set(approvers)
	count(approvers) > 0
	count({1 | some approver in approvers; not is_string(approver)}) == 0
}

# METADATA
# title: What a team says of the approver and the one access that the input is about
# description: By the name of its rule, so that OPA knows that no other rule of the team's is evaluated here.
said(team) := data.mcp.teams[team].approver

# METADATA
# title: The question as a team sees it; there is no command in it
question(access) := {
	"v": input.v,
	"subject": input.subject,
	"actor": input.actor,
	"action": input.action,
	"access": access,
	"context": input.context,
}
