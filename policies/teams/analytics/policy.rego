# METADATA
# title: The analytics team's databases, sales and staging
# description: Analysts read orders, regional analysts those of their own region, loaders put rows in.
# schemas:
#   - input: schema.question
package mcp.teams.analytics

import data.mcp.lib

# METADATA
# title: What the team grants
# scope: document
grant contains {"id": "analysts-read-orders"} if {
	lib.reads
	lib.on("sales", ["orders"])
	lib.in_group("analysts")
}

# The names of collections and fields, in sales as a whole and in each collection.
grant contains {"id": "readers-see-the-catalogue"} if {
	lib.reads_metadata
	lib.on("sales", ["", "*"])
	lib.in_any_group({"analysts", "regional-analysts"})
}

# A token without a region gives no grant: the filter would be undefined, and so is the grant.
grant contains {"id": "regional-analysts-read-own-region", "filter": {"region": region}} if {
	lib.reads
	lib.on("sales", ["orders", "returns"])
	lib.in_group("regional-analysts")
	region := input.subject.claims.region
	is_string(region)
}

grant contains {"id": "loaders-insert-orders"} if {
	lib.inserts
	lib.on("sales", ["orders"])
	lib.in_group("loaders")
}

grant contains {"id": "loaders-fill-staging"} if {
	lib.inserts
	lib.on("staging", ["*"])
	lib.in_group("loaders")
}

grant contains {"id": "loaders-clear-staging"} if {
	lib.drops
	lib.on("staging", ["*"])
	lib.in_group("loaders")
}

grant contains {"id": "weekday-loaders-insert-returns"} if {
	lib.inserts
	lib.on("sales", ["returns"])
	lib.in_group("weekday-loaders")
	lib.during(data.mcp.grants.analytics.loading_hours)
}

# METADATA
# title: What the team denies, whatever it grants
# scope: document
deny contains "frozen" if input.access.database in data.mcp.grants.analytics.frozen

# A deny that reads data says what happens when the data is not there.
deny contains "frozen-unknown" if not data.mcp.grants.analytics.frozen
