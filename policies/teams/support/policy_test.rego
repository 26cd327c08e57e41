# METADATA
# title: Tests of the support team's policy
package mcp.teams.support.policy_test

import data.mcp.teams.support

# METADATA
# title: A question to the team
question(groups, kind, collection) := {
	"subject": {"groups": groups},
	"access": {"kind": kind, "database": "support", "collection": collection},
	"command": {"traits": []},
}

# METADATA
# title: The grants that match
grants(asked) := {grant | some grant in support.grant with input as asked}

ids(asked) := {grant.id | some grant in grants(asked)}

test_support_reads_tickets_without_personal_data if {
	found := grants(question(["support"], "read", "tickets")) with data.mcp.grants.support.personal as ["customer.email"]
	found == {{"id": "support-reads-tickets", "mask": ["customer.email"], "max_documents": 100}}
}

test_without_the_list_of_personal_data_there_is_no_grant if {
	asked := question(["support"], "read", "tickets")
	{grant | some grant in support.grant with input as asked with data.mcp.grants.support as {}} == set()
}

test_leads_read_it_after_the_approval_of_a_second_person if {
	grants(question(["support-leads"], "read", "tickets")) == {{
		"id": "leads-read-tickets-unmasked",
		"approval": "second_person",
		"max_documents": 20,
	}}
}

test_support_updates_single_tickets if {
	asked := question(["support"], "update", "tickets")
	ids(asked) == {"support-updates-tickets"} with data.mcp.grants.support.personal as ["customer.email"]
	ids(json.patch(asked, [{"op": "replace", "path": "/command/traits", "value": ["whole_collection"]}])) == set()
	ids(question(["support"], "delete", "tickets")) == set()
	ids(question(["support-leads"], "update", "tickets")) == set()
}

test_support_sees_the_catalogue if {
	ids(question(["support"], "metadata", "")) == {"support-sees-the-catalogue"}
	ids(question(["support-leads"], "metadata", "tickets")) == {"support-sees-the-catalogue"}
	ids(question(["analysts"], "metadata", "")) == set()
}

test_others_and_other_collections_get_nothing if {
	ids(question(["analysts"], "read", "tickets")) == set()
	ids(question(["support"], "read", "invoices")) == set()
	ids(question(["support"], "update", "invoices")) == set()
	ids(question(["support-leads"], "read", "invoices")) == set()
}

test_other_databases_are_not_theirs if {
	every asked in [
		question(["support"], "read", "tickets"),
		question(["support"], "update", "tickets"),
		question(["support"], "metadata", "tickets"),
		question(["support-leads"], "read", "tickets"),
	] {
		ids(json.patch(asked, [{"op": "replace", "path": "/access/database", "value": "sales"}])) == set()
	}
}

test_leads_approve_and_nobody_else_does if {
	{name | some name in support.approver with input as question(["support-leads"], "read", "tickets")} == {"another-lead"}
	every groups in [["support"], ["analysts"], []] {
		{name | some name in support.approver with input as question(groups, "read", "tickets")} == set()
	}
}
