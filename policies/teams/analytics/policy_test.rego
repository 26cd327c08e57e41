# METADATA
# title: Tests of the analytics team's policy
package mcp.teams.analytics.policy_test

import data.mcp.teams.analytics

# METADATA
# title: A question to the team
question(groups, kind, database, collection) := {
	"subject": {"groups": groups, "claims": {"region": "EU"}},
	"access": {"kind": kind, "database": database, "collection": collection},
}

# METADATA
# title: The identifiers of the grants that match
ids(asked) := {grant.id | some grant in analytics.grant with input as asked}

test_analysts_read_orders if {
	ids(question(["analysts"], "read", "sales", "orders")) == {"analysts-read-orders"}
}

test_others_and_other_collections_and_kinds_are_not_theirs if {
	ids(question(["loaders"], "read", "sales", "orders")) == set()
	ids(question(["analysts"], "read", "sales", "customers")) == set()
	ids(question(["analysts"], "read", "staging", "orders")) == set()
	ids(question(["analysts"], "insert", "sales", "orders")) == set()
	ids(question(["analysts"], "read", "sales", "")) == set()
}

test_readers_see_the_catalogue if {
	every group in ["analysts", "regional-analysts"] {
		every collection in ["", "orders", "customers"] {
			ids(question([group], "metadata", "sales", collection)) == {"readers-see-the-catalogue"}
		}
	}
	ids(question(["loaders"], "metadata", "sales", "")) == set()
	ids(question(["analysts"], "metadata", "staging", "")) == set()
}

test_regional_analysts_read_their_region if {
	every collection in ["orders", "returns"] {
		asked := question(["regional-analysts"], "read", "sales", collection)
		grants := analytics.grant with input as asked
		grants == {{"id": "regional-analysts-read-own-region", "filter": {"region": "EU"}}}
	}
}

test_the_region_is_that_of_the_token if {
	asked := question(["regional-analysts"], "read", "sales", "orders")
	american := json.patch(asked, [{"op": "replace", "path": "/subject/claims/region", "value": "US"}])
	grants := analytics.grant with input as american
	grants == {{"id": "regional-analysts-read-own-region", "filter": {"region": "US"}}}
}

test_regional_analysts_do_nothing_else if {
	ids(question(["regional-analysts"], "read", "sales", "customers")) == set()
	ids(question(["regional-analysts"], "read", "staging", "orders")) == set()
	ids(question(["regional-analysts"], "update", "sales", "orders")) == set()
	ids(question(["regional-analysts"], "export", "sales", "orders")) == set()
}

test_without_a_region_there_is_no_grant if {
	asked := question(["regional-analysts"], "read", "sales", "orders")
	every claims in [{}, {"region": null}, {"region": {"$ne": ""}}, {"region": ["EU"]}] {
		ids(json.patch(asked, [{"op": "replace", "path": "/subject/claims", "value": claims}])) == set()
	}
}

test_a_frozen_database_is_denied if {
	asked := question(["analysts"], "read", "sales", "orders")
	analytics.deny == set() with input as asked with data.mcp.grants.analytics.frozen as []
	analytics.deny == {"frozen"} with input as asked with data.mcp.grants.analytics.frozen as ["sales"]
	analytics.deny == set() with input as asked with data.mcp.grants.analytics.frozen as ["staging"]
	analytics.deny == {"frozen-unknown"} with input as asked with data.mcp.grants.analytics as {}
}
