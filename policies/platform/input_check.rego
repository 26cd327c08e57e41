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
target_kinds := {"organisation", "project", "cluster", "deployment", "service"}

# METADATA
# title: Facts about a command; a closed set
traits := {
	"server_side_js", "unbounded", "whole_collection", "upsert", "drops_target", "writes_via_pipeline", "change_stream",
	"executes_plan", "cross_database", "external_service", "credentials_in_arguments", "system_namespace", "user_roles",
	"all_indexes", "exports_file", "cost", "network_exposure", "runs_container",
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
	is_object(input.action)
	object.keys(input.action) == {"method", "tool"}
	is_string(input.action.method)
	input.action.method != ""
	is_string(input.action.tool)
	input.action.tool != ""
	is_array(input.accesses)
	count(input.accesses) > 0
	count(input.accesses) <= most_accesses
	count([access | some access in input.accesses; not well_formed_access(access)]) == 0
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
# description: One long rule on purpose. A call of a function costs OPA ten times what a comparison does, on every question.
asked if {
	input.v == 1
	is_object(input.subject)
	object.keys(input.subject) == {"type", "id", "issuer", "groups", "roles", "scopes", "claims"}
	input.subject.type == "user"
	is_string(input.subject.id)
	input.subject.id != ""
	is_string(input.subject.issuer)
	input.subject.issuer != ""
	is_array(input.subject.groups)
	is_array(input.subject.roles)
	is_array(input.subject.scopes)
	is_object(input.subject.claims)
	is_object(input.actor)
	object.keys(input.actor) == {"type", "id", "chain"}
	input.actor.type == "agent"
	is_string(input.actor.id)
	input.actor.id != ""
	is_array(input.actor.chain)
	lists := [input.subject.groups, input.subject.roles, input.subject.scopes, input.actor.chain]
	count([item | some list in lists; some item in list; not is_string(item)]) == 0
	is_object(input.context)
	object.keys(input.context) == {"time_ns", "client_ip", "protocol", "environment", "approval"}
	natural(input.context.time_ns)
	is_string(input.context.client_ip)
	is_string(input.context.protocol)
	is_string(input.context.environment)
	type_name(input.context.approval) in {"null", "object"}
}

# METADATA
# title: What the call would do, apart from its accesses
command if {
	is_object(input.command)
	object.keys(input.command) == {"traits", "stages", "fields", "limit"}
	is_array(input.command.traits)
	count({trait | some trait in input.command.traits} - traits) == 0
	is_object(input.command.fields)
	object.keys(input.command.fields) == {"filtered", "returned"}
	is_array(input.command.stages)
	is_array(input.command.fields.filtered)
	lists := [input.command.stages, input.command.fields.filtered]
	count([item | some list in lists; some item in list; not is_string(item)]) == 0
	count([value | value := input.command.fields.returned; value != "all"; not strings(value)]) == 0
	count([value | value := input.command.limit; value != null; not natural(value)]) == 0
}

# METADATA
# title: What every call of a tool needs, and what some calls need besides
tool_kinds(value) if {
	exactly(value, {"needs", "may_need"})
	kind_list(value.needs)
	kind_list(value.may_need)
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
	exactly(value, {"owner", "kinds", "databases", "collections"})
	named(value.owner)
	strings_or_null(value.kinds)
	strings_or_null(value.databases)
	strings_or_null(value.collections)
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
# title: One kind of use of one namespace, of one target, or of one namespace through a view
# scope: document
well_formed_access(value) if {
	is_object(value)
	object.keys(value) == {"kind", "database", "collection", "via"}
	used(value)
}

well_formed_access(value) if {
	is_object(value)
	object.keys(value) == {"kind", "database", "collection", "via", "target"}
	used(value)
	value.database == ""
	exactly(value.target, {"kind", "id"})
	value.target.kind in target_kinds
	is_string(value.target.id)
}

well_formed_access(value) if {
	is_object(value)
	object.keys(value) == {"kind", "database", "collection", "via", "via_view"}
	used(value)
	value.database != ""
	exactly(value.via_view, {"database", "collection"})
	named(value.via_view.database)
	named(value.via_view.collection)
}

# METADATA
# title: A known kind of use, of a database, a collection in a database, or neither
used(value) if {
	value.kind in kinds
	is_string(value.via)
	is_string(value.database)
	is_string(value.collection)
	in_database(value.database, value.collection)
}

# METADATA
# title: A collection belongs to a database
# scope: document
in_database(database, _) if database != ""

in_database("", "") := true
