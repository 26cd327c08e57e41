# METADATA
# title: The analytics team's database, sales
# description: Analysts read orders; regional analysts read the rows of their own region, which is a claim of their token.
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

# METADATA
# title: What the team denies; a deny beats every grant
# scope: document
deny contains "frozen" if input.access.database in data.mcp.grants.analytics.frozen

# A deny that reads data says what happens when the data is not there.
deny contains "frozen-unknown" if not data.mcp.grants.analytics.frozen
