# METADATA
# title: The loading team's database, staging
# description: The nightly loader puts documents into its own collections on weekdays, and reads what it loaded. That is all.
# schemas:
#   - input: schema.question
package mcp.teams.loading

import data.mcp.lib

# METADATA
# title: The nightly loader, for one of the loaders, in a collection that it fills
# description: Both are asked for. Another agent of a loader gets nothing, and neither does the agent for anybody else.
loader_at_home if {
	lib.via_agent("nightly-loader")
	lib.in_group("loaders")
	lib.on("staging", data.mcp.grants.loading.collections)
}

# METADATA
# title: What the team grants
# scope: document
grant contains {"id": "loader-inserts-on-weekdays"} if {
	lib.inserts
	loader_at_home
	lib.during(data.mcp.grants.loading.hours)
}

# At any hour: a load is looked at on the day after it.
grant contains {"id": "loader-reads-what-it-loaded"} if {
	lib.reads
	loader_at_home
}

# METADATA
# title: What the team denies; a deny beats every grant
# scope: document
deny contains "frozen" if lib.named(data.mcp.grants.loading.frozen, input.access.collection)

# A deny that reads data says what happens when the data is not there, or not of its form.
deny contains "frozen-unknown" if not frozen_known

# METADATA
# title: There is a list of frozen collections; it may be empty
frozen_known if is_array(data.mcp.grants.loading.frozen)
