# METADATA
# title: Is the question well-formed
# description: >-
#   The same rules as schema/input.json, in Rego, because they are asked on every call and a schema builtin costs more than
#   the decision. Exact keys everywhere: an unknown key is a question that these policies were not written for.
package mcp.platform.input_check

# METADATA
# title: The kinds of access; a closed set
kinds := {
	"read", "metadata", "insert", "update", "delete", "create", "drop", "index", "admin", "connect", "export", "external",
	"execute",
}

# METADATA
# title: What an access touches when that is not a namespace; a closed set
target_kinds := {
	"organisation", "project", "cluster", "deployment", "service", "tool", "prompt", "resource",
	"question",
}

# METADATA
# title: Facts about a command; a closed set
traits := {
	"server_side_js", "unbounded", "whole_collection", "upsert", "drops_target", "writes_via_pipeline", "change_stream",
	"executes_plan", "cross_database", "external_service", "credentials_in_arguments", "system_namespace", "user_roles",
	"all_indexes", "exports_file", "cost", "network_exposure", "runs_container", "amplifying",
}

# METADATA
# title: The most accesses that one question may hold
most_accesses := 256

# METADATA
# title: A question about one call
# scope: document
default valid := false

valid if {
	is_object(input)
	object.keys(input) == {"v", "subject", "actor", "action", "accesses", "command", "context"}
	asked
	{"method": method, "tool": tool} = input.action
	is_string(method)
	method != ""
	is_string(tool)
	tool != ""
	is_array(input.accesses)
	count(input.accesses) > 0
	count(input.accesses) <= most_accesses
	well_formed
	command
}

# METADATA
# title: A question about the list of tools
# scope: document
default valid_visibility := false

valid_visibility if {
	is_object(input)
	object.keys(input) == {"v", "subject", "actor", "action", "tools", "possible", "context"}
	asked
	input.action == {"method": "tools/list"}
	is_object(input.tools)
	count([name | some name, tool in input.tools; not tool_kinds(tool)]) == 0
	possible(input.possible)
}

# METADATA
# title: Who asks, through whom, when and from where
# description: >-
#   One long rule of patterns on purpose: a pattern holds where exactly these keys are there, and a call of a function costs OPA
#   ten times what a comparison does, on every question.
asked if {
	input.v == 1
	is_object(input.subject)
	{
		"type": subject_type,
		"id": user,
		"issuer": issuer,
		"groups": groups,
		"roles": roles,
		"scopes": scopes,
		"claims": claims,
	} = object.remove(input.subject, ["several_issuers"])
	object.get(input.subject, "several_issuers", true) == true
	subject_type in {"user", "service"}
	is_string(user)
	user != ""
	is_string(issuer)
	issuer != ""
	is_array(groups)
	is_array(roles)
	is_array(scopes)
	is_object(claims)
	{"type": "agent", "id": agent, "chain": chain} = input.actor
	is_string(agent)
	agent != ""
	is_array(chain)
	count([item | some list in [groups, roles, scopes, chain]; some item in list; not is_string(item)]) == 0
	{
		"time_ns": time_ns,
		"client_ip": client_ip,
		"protocol": protocol,
		"environment": environment,
		"approval": approval,
	} = input.context
	natural(time_ns)
	is_string(client_ip)
	is_string(protocol)
	is_string(environment)
	type_name(approval) in {"null", "object"}
}

# METADATA
# title: What the call would do, apart from its accesses
# description: What it asks for (`amplifiers`) is there only where it asks for anything.
command if {
	{"traits": seen, "stages": stages, "fields": {"filtered": filtered, "returned": returned}, "limit": limit} = plain_command
	is_array(seen)
	count([trait | some trait in seen; not trait in traits]) == 0
	is_array(stages)
	is_array(filtered)
	count([item | some list in [stages, filtered]; some item in list; not is_string(item)]) == 0
	count([value | value := returned; value != "all"; not strings(value)]) == 0
	count([value | value := limit; value != null; not natural(value)]) == 0
}

# METADATA
# title: The command without what it asks for and the arguments that policy may see, if those are well-formed
plain_command := bare_command if not input.command.amplifiers

plain_command := object.remove(bare_command, ["amplifiers"]) if {
	is_array(input.command.amplifiers)
	count(input.command.amplifiers) > 0
	count([amplifier | some amplifier in input.command.amplifiers; not asked_for(amplifier)]) == 0
}

# METADATA
# title: The command without the arguments that policy may see, if those are well-formed
bare_command := input.command if not input.command.arguments

bare_command := object.remove(input.command, ["arguments"]) if {
	is_object(input.command.arguments)
	count(input.command.arguments) > 0
	count([place | some place, value in input.command.arguments; not scalar(place, value)]) == 0
}

# METADATA
# title: A JSON pointer and a value that has no parts
scalar(place, value) if {
	startswith(place, "/")
	type_name(value) in {"string", "number", "boolean", "null"}
}

# METADATA
# title: A construct, how much of it is asked for, and where
asked_for(value) if {
	{"construct": construct, "number": number, "at": at} = value
	is_string(construct)
	is_string(at)
	type_name(number) in {"number", "null"}
}

# METADATA
# title: What every call of a tool needs, and what some calls need besides; with the target, where there is only one
# scope: document
tool_kinds(value) if {
	exactly(value, {"needs", "may_need"})
	kind_list(value.needs)
	kind_list(value.may_need)
}

tool_kinds(value) if {
	exactly(value, {"needs", "may_need", "target"})
	kind_list(value.needs)
	value.may_need == []
	exactly(value.target, {"kind", "id"})
	value.target.kind in target_kinds
	is_string(value.target.id)
}

# METADATA
# title: What the owners could grant, or null where that is not known
# scope: document
possible(null) := true

possible(value) if {
	is_array(value)
	count([grant | some grant in value; not possible_grant(grant)]) == 0
}

# METADATA
# title: What one grant could still be about; null is everything
possible_grant(value) if {
	exactly(value, {"owner", "kinds", "databases", "collections", "targets"})
	named(value.owner)
	strings_or_null(value.kinds)
	strings_or_null(value.databases)
	strings_or_null(value.collections)
	strings_or_null(value.targets)
}

# METADATA
# title: An array of strings, or null
# scope: document
strings_or_null(null) := true

strings_or_null(value) if strings(value)

# METADATA
# title: An object with exactly these keys
exactly(value, keys) if {
	is_object(value)
	object.keys(value) == keys
}

# METADATA
# title: A string that says something
named(value) if {
	is_string(value)
	value != ""
}

# METADATA
# title: An array of strings, which may be empty
strings(value) if {
	is_array(value)
	count([item | some item in value; not is_string(item)]) == 0
}

# METADATA
# title: An array of kinds, which may be empty
kind_list(value) if {
	is_array(value)
	count([item | some item in value; not item in kinds]) == 0
}

# METADATA
# title: A whole number from 0 that MongoDB and OPA's clock functions can hold
natural(value) if {
	is_number(value)
	value >= 0
	value <= 9223372036854775807
	value == floor(value)
}

# METADATA
# title: Every access is well-formed
# description: >-
#   Each is of one of four forms that exclude each other, so none is counted twice. Patterns on purpose: a call of a function for
#   each access costs OPA three times as much. The first rule is a shortcut for accesses of the first form only.
# scope: document
well_formed if count(of_namespaces) == count(input.accesses)

well_formed if {
	forms := [of_namespaces, through_views, of_targets, of_the_whole]
	sum([count(form) | some form in forms]) == count(input.accesses)
}

# METADATA
# title: The accesses to a database or to a collection in it
of_namespaces := [kind |
	some access in input.accesses
	{"kind": kind, "database": database, "collection": collection, "via": via} = access
	database != ""
	kind in kinds
	is_string(via)
	is_string(database)
	is_string(collection)
]

# METADATA
# title: The accesses to a database or to a collection in it through a view
through_views := [kind |
	some access in input.accesses
	{"kind": kind, "database": database, "collection": collection, "via": via, "via_view": view} = access
	database != ""
	kind in kinds
	is_string(via)
	is_string(database)
	is_string(collection)
	exactly(view, {"database", "collection"})
	named(view.database)
	named(view.collection)
]

# METADATA
# title: The accesses to a target, which is in no database
of_targets := [kind |
	some access in input.accesses
	{"kind": kind, "database": "", "collection": "", "via": via, "target": target} = access
	kind in kinds
	is_string(via)
	exactly(target, {"kind", "id"})
	target.kind in target_kinds
	is_string(target.id)
]

# METADATA
# title: The accesses to neither; a collection without a database is nothing
of_the_whole := [kind |
	some access in input.accesses
	{"kind": kind, "database": "", "collection": "", "via": via} = access
	kind in kinds
	is_string(via)
]
