# METADATA
# title: The four questions of the sidecar
# description: >-
#   `decision` (may this call happen, where, under which obligations), `visibility` (which tools does this caller see),
#   `approver` (may this person give the approval that a call waits for) and `selftest` (is this engine the one that the policies
#   were written for). Nothing else is asked. Each is defined for every
#   input; what is not a well-formed question is refused as `invalid_input`.
# schemas:
#   - input: schema.input
package mcp.main

import data.mcp.platform.approving
import data.mcp.platform.bounds
import data.mcp.platform.budgets
import data.mcp.platform.ceilings
import data.mcp.platform.configuration
import data.mcp.platform.delegation
import data.mcp.platform.facts
import data.mcp.platform.guardrails
import data.mcp.platform.input_check
import data.mcp.platform.routing
import data.mcp.platform.step_up
import data.mcp.platform.verdicts
import data.mcp.platform.views
import data.mcp.platform.visible

# METADATA
# title: The policy set that answers
# description: Set as data when OPA is started; empty where it was not set.
# scope: document
default revision := ""

revision := data.mcp.revision if is_string(data.mcp.revision)

# METADATA
# title: May this call happen
# description: >-
#   Allow or deny with reasons, the server to forward to, and one verdict per access with its obligations. A deny that more
#   scopes would turn into an allow says which (`step_up`); that is looked at only where there is a deny. An allow says the
#   limits that it counts towards (`limits`), where there are any.
# scope: document
# entrypoint: true
decision := object.union(judged, {"step_up": offer}) if {
	not judged.allow
	input_check.valid
	configuration.sound
	offer := step_up.offer
} else := object.union(judged, {"limits": budgets.applying}) if {
	judged.allow
	count(budgets.fitting) > 0
	count(budgets.applying) > 0
} else := judged

# METADATA
# title: The decision with the scopes that the token has
# scope: document
judged := closed("invalid_input") if {
	not input_check.valid
} else := closed("platform_data_invalid") if {
	not configuration.sound
} else := direct if {
	count(views.implied) == 0
} else := closed("invalid_input") if {
	not input_check.valid with input as views.asked
} else := views.folded(answer) if {
	answer := direct with input as views.asked
}

# METADATA
# title: The decision on exactly the accesses of the question
direct := {
	"v": 1,
	"allow": allow,
	"reasons": sort(reasons),
	"server": routing.server,
	"accesses": verdicts.answers,
	"approval": approval,
	"revision": revision,
}

# METADATA
# title: A refusal before anything was looked at
closed(code) := {
	"v": 1,
	"allow": false,
	"reasons": [{"code": code, "source": "platform", "access": null}],
	"server": "",
	"accesses": [],
	"approval": null,
	"revision": revision,
}

# METADATA
# title: Allowed
# description: >-
#   No reason against it, and, said a second time positively, a server and at least one grant for every access. The first
#   half alone would hold for a question that was not checked.
# scope: document
default allow := false

allow if {
	input_check.valid
	configuration.sound
	count(reasons) == 0
	routing.server != ""
	count(input.accesses) > 0
	count([index | some index, grants in verdicts.granted; count(grants) > 0]) == count(input.accesses)
}

# METADATA
# title: Everything that speaks against the call
# description: Objects `{code, source, access}`, with `bound` where one is exceeded; the codes are those of schema/reasons.json, the source is "platform" or a team.
# scope: document
reasons := union({
	bounds.reasons,
	routing.reasons,
	ceilings.reasons,
	guardrails.reasons,
	delegation.reasons,
	verdicts.reasons,
	views.reasons,
})

# METADATA
# title: Whose consent the call waits for
# description: Null, also where the call is denied; else the accesses that ask for an approval with the codes of the approvals that they ask for.
# scope: document
default approval := null

approval := {"accesses": asking} if {
	verdicts.approvals != {}
	allow
	asking := [{"access": index, "codes": sort(codes)} | some index, codes in verdicts.approvals]
}

# METADATA
# title: Which tools does this caller see
# description: Showing too much is harmless, the call is decided anyway; hiding too much is not.
# entrypoint: true
# schemas:
#   - input: schema.visibility
visibility := {"v": 1, "tools": sort(visible.tools), "servers": sort(visible.servers)}

# METADATA
# title: May this person give the approval that a call waits for
# entrypoint: true
# schemas:
#   - input: schema.approving
approver := {"v": 1, "may": approving.may, "revision": revision}

# METADATA
# title: Is this the engine that the policies were written for
# description: Known answers, to be compared by the asker with its own constants.
# entrypoint: true
# schemas:
#   - input: schema.selftest
selftest := facts.answer
