# METADATA
# title: Tests of the analytics team's policy
package mcp.teams.analytics.policy_test

import data.mcp.teams.analytics

# METADATA
# title: A question to the team; Wednesday noon in UTC
question(groups, kind, database, collection) := {
	"subject": {"groups": groups, "claims": {"region": "EU"}},
	"access": {"kind": kind, "database": database, "collection": collection},
	"context": {"time_ns": 1704888000000000000},
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
	every collection in ["", "orders", "customers"] {
		ids(question(["analysts"], "metadata", "sales", collection)) == {"readers-see-the-catalogue"}
	}
	ids(question(["loaders"], "metadata", "sales", "")) == set()
	ids(question(["analysts"], "metadata", "staging", "")) == set()
}

test_regional_analysts_read_their_region if {
	asked := question(["regional-analysts"], "read", "sales", "orders")
	grants := analytics.grant with input as asked
	grants == {{"id": "regional-analysts-read-own-region", "filter": {"region": "EU"}}}
}

test_without_a_region_there_is_no_grant if {
	asked := question(["regional-analysts"], "read", "sales", "orders")
	every claims in [{}, {"region": null}, {"region": {"$ne": ""}}, {"region": ["EU"]}] {
		ids(json.patch(asked, [{"op": "replace", "path": "/subject/claims", "value": claims}])) == set()
	}
}

test_loaders_insert_orders_and_fill_staging if {
	ids(question(["loaders"], "insert", "sales", "orders")) == {"loaders-insert-orders"}
	ids(question(["loaders"], "insert", "staging", "imports")) == {"loaders-fill-staging"}
	ids(question(["loaders"], "insert", "sales", "customers")) == set()
	ids(question(["loaders"], "delete", "sales", "orders")) == set()
	ids(question(["analysts"], "insert", "staging", "imports")) == set()
}

test_loaders_clear_staging_and_nothing_else if {
	ids(question(["loaders"], "drop", "staging", "imports")) == {"loaders-clear-staging"}
	ids(question(["loaders"], "drop", "sales", "orders")) == set()
	ids(question(["loaders"], "drop", "staging", "")) == set()
	ids(question(["analysts"], "drop", "staging", "imports")) == set()
}

test_weekday_loaders_insert_on_weekdays_only if {
	wednesday := question(["weekday-loaders"], "insert", "sales", "returns")
	sunday := json.patch(wednesday, [{"op": "replace", "path": "/context/time_ns", "value": 1704628800000000000}])
	ids(wednesday) == {"weekday-loaders-insert-returns"}
	ids(sunday) == set()
}

test_a_frozen_database_is_denied if {
	asked := question(["analysts"], "read", "sales", "orders")
	analytics.deny == set() with input as asked with data.mcp.grants.analytics.frozen as []
	analytics.deny == {"frozen"} with input as asked with data.mcp.grants.analytics.frozen as ["sales"]
	analytics.deny == set() with input as asked with data.mcp.grants.analytics.frozen as ["staging"]
	analytics.deny == {"frozen-unknown"} with input as asked with data.mcp.grants.analytics as {}
}
