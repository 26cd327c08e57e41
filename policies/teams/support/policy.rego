# METADATA
# title: The support team's database, support
# description: Support people work on tickets without seeing personal data; leads see it after another lead approved it.
# schemas:
#   - input: schema.question
package mcp.teams.support

import data.mcp.lib

# METADATA
# title: What the team grants
# scope: document
grant contains {"id": "support-reads-tickets", "mask": data.mcp.grants.support.personal, "max_documents": 100} if {
	lib.reads
	lib.on("support", ["tickets"])
	lib.in_group("support")
}

grant contains {"id": "leads-read-tickets-unmasked", "approval": "second_person", "max_documents": 20} if {
	lib.reads
	lib.on("support", ["tickets"])
	lib.in_group("support-leads")
}

grant contains {"id": "support-sees-the-catalogue"} if {
	lib.reads_metadata
	lib.on("support", ["", "*"])
	lib.in_any_group({"support", "support-leads"})
}

# The mask is for the update too: a condition on a masked field would tell its value.
grant contains {"id": "support-updates-tickets", "mask": data.mcp.grants.support.personal} if {
	input.access.kind == "update"
	lib.on("support", ["tickets"])
	lib.in_group("support")
	not lib.has_trait("whole_collection")
}

# METADATA
# title: Who approves for the team
# scope: document
approver contains "another-lead" if lib.in_group("support-leads")
