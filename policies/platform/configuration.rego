# METADATA
# title: Is the platform's own data there
# description: >-
#   A missing table makes the rules that read it undefined, and an undefined deny is no deny; so the tables are looked at first,
#   and so are the entries of those tables that refuse. The others are held to schema/platform.json when the set is checked:
#   where one of them is not of its form, something is not allowed. Said positively on purpose: in OPA `not is_object(x)` is
#   undefined, not true, where x is undefined.
package mcp.platform.configuration

import data.mcp.platform.input_check

# METADATA
# title: The platform's data is usable
# description: >-
#   Data does not change under an OPA that the sidecar started: what was found when the set was checked is put beside the
#   revision as data (`examined`), and counts. Where nothing was put there, the tables are looked at for every question.
# scope: document
default sound := false

sound if data.mcp.examined == true

sound if in_form

# METADATA
# title: Every table that a rule relies on is of its form
# description: By this module and input_check alone, which is all that the sidecar evaluates for it when it checks a set.
in_form if {
	is_object(data.mcp.platform.servers)
	is_object(data.mcp.platform.deployments)
	is_object(data.mcp.platform.scopes)
	is_object(data.mcp.platform.traits)
	bounds
	is_object(data.mcp.platform.agents["default"])
	is_object(data.mcp.platform.agents.registered)
	is_array(data.mcp.platform.routes)
	is_array(data.mcp.platform.grants)
	is_array(data.mcp.platform.break_glass)
	refusals
	views
	limits
	approvers
}

# METADATA
# title: The bounds of what a command may ask for are numbers
bounds if {
	is_object(data.mcp.platform.amplifiers)
	count([construct | some construct, bound in data.mcp.platform.amplifiers; not is_number(bound)]) == 0
}

# METADATA
# title: The tables of views can be looked into; a name that is not found there is no view
# description: Each declaration is looked at when a call goes through it.
views if {
	count([name | some name; table := data.mcp.platform.deployments[name].views; not is_object(table)]) == 0
	count([name |
		some name, database
		table := data.mcp.platform.deployments[name].views[database]
		not is_object(table)
	]) == 0
}

# METADATA
# title: The tables that refuse say what they refuse
refusals if {
	is_array(data.mcp.platform.refused_kinds)
	count({kind | some kind in data.mcp.platform.refused_kinds} - input_check.kinds) == 0
	is_array(data.mcp.platform.suspended.agents)
	count([agent | some agent in data.mcp.platform.suspended.agents; not is_string(agent)]) == 0
	is_array(data.mcp.platform.suspended.subjects)
	count([entry |
		some entry in data.mcp.platform.suspended.subjects
		not input_check.exactly(entry, {"issuer", "id"})
	]) == 0
	is_array(data.mcp.platform.windows)
	count([window | some window in data.mcp.platform.windows; not sound_window(window)]) == 0
}

# METADATA
# title: A window that closes what it says
sound_window(window) if {
	input_check.exactly(window, {"id", "kinds", "databases", "hours"})
	count(window.kinds) > 0
	input_check.kind_list(window.kinds)
	count(window.databases) > 0
	input_check.strings(window.databases)
}

# METADATA
# title: What is counted
amounts := ["calls", "documents", "bytes"]

# METADATA
# title: The most entries that the table may have
most_limits := 16

# METADATA
# title: The longest span of time, one day
longest := 86400

# METADATA
# title: The table of limits on use is one that the rules were written for; it need not be there
# description: A limit that nobody can read would be none.
limits if {
	count([1 | table := data.mcp.platform.limits; not is_array(table)]) == 0
	count([limit | some limit in data.mcp.platform.limits; not sound_limit(limit)]) == 0
	count([1 | some limit in data.mcp.platform.limits]) <= most_limits
	count({limit.id | some limit in data.mcp.platform.limits}) == count([1 | some limit in data.mcp.platform.limits])
}

# METADATA
# title: A limit that says for whom it is, what it counts by, and how much there is
sound_limit(limit) if {
	is_object(limit)
	said := object.keys(limit) & {amount | some amount in amounts}
	count(said) > 0
	input_check.exactly(object.remove(limit, said), {"id", "per", "groups", "agents", "tools", "teams", "window_s"})
	input_check.named(limit.id)
	count([part | some part in ["groups", "agents", "tools", "teams"]; not some_strings(limit[part])]) == 0
	input_check.strings(limit.per)
	count({part | some part in limit.per} - {"subject", "agent", "tool", "team"}) == 0
	positive(limit.window_s)
	limit.window_s <= longest
	count([amount | some amount in said; not positive(limit[amount])]) == 0
}

# METADATA
# title: A whole number from 1
positive(value) if {
	input_check.natural(value)
	value > 0
}

# METADATA
# title: The table of approvers is one that the rules were written for; it need not be there
approvers if {
	count([1 | table := data.mcp.platform.approvers; not is_array(table)]) == 0
	count([entry | some entry in data.mcp.platform.approvers; not sound_entry(entry)]) == 0
}

# METADATA
# title: An entry that says for which teams and kinds, and who
sound_entry(entry) if {
	input_check.exactly(object.remove(entry, {"issuers"}), {"id", "teams", "kinds", "groups", "agents", "scopes"})
	input_check.named(entry.id)
	count([part | some part in ["teams", "kinds", "groups", "agents", "scopes"]; not some_strings(entry[part])]) == 0
	input_check.kind_list(entry.kinds)
	input_check.strings(object.get(entry, "issuers", []))
}

# METADATA
# title: An array of at least one string
some_strings(value) if {
	input_check.strings(value)
	count(value) > 0
}
