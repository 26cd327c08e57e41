# METADATA
# title: Is the platform's own data there
# description: >-
#   A missing table makes the rules that read it undefined, and an undefined deny is no deny; so the tables are looked at first,
#   and so are the entries of those tables that refuse. The others are held to schema/platform.json when the set is checked:
#   where one of them is not of its form, something is not allowed. Said positively on purpose: in OPA `not is_object(x)` is
#   undefined, not true, where x is undefined.
package mcp.platform.configuration

import data.mcp.platform.approving
import data.mcp.platform.budgets
import data.mcp.platform.input_check

# METADATA
# title: The platform's data is usable
# scope: document
default sound := false

sound if {
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
	budgets.sound
	approving.sound
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
