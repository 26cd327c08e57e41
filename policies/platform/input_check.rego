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
	exactly(input, {"v", "subject", "actor", "action", "accesses", "command", "context"})
	input.v == 1
	subject(input.subject)
	actor(input.actor)
	action(input.action)
	is_array(input.accesses)
	count(input.accesses) > 0
	count(input.accesses) <= most_accesses
	count([access | some access in input.accesses; not well_formed_access(access)]) == 0
	command(input.command)
	context(input.context)
}

# METADATA
# title: A question about the list of tools
# scope: document
default valid_visibility := false

valid_visibility if {
	exactly(input, {"v", "subject", "actor", "action", "tools", "possible", "context"})
	input.v == 1
	subject(input.subject)
	actor(input.actor)
	input.action == {"method": "tools/list"}
	is_object(input.tools)
	count([name | some name, tool in input.tools; not tool_kinds(tool)]) == 0
	possible(input.possible)
	context(input.context)
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
# title: Who the token speaks for
subject(value) if {
	exactly(value, {"type", "id", "issuer", "groups", "roles", "scopes", "claims"})
	value.type == "user"
	named(value.id)
	named(value.issuer)
	strings(value.groups)
	strings(value.roles)
	strings(value.scopes)
	is_object(value.claims)
}

# METADATA
# title: Who acts for the subject
actor(value) if {
	exactly(value, {"type", "id", "chain"})
	value.type == "agent"
	named(value.id)
	strings(value.chain)
}

# METADATA
# title: What was called
action(value) if {
	exactly(value, {"method", "tool"})
	named(value.method)
	named(value.tool)
}

# METADATA
# title: One kind of use of one namespace or target
well_formed_access(value) if {
	is_object(value)
	keys := object.keys(value)
	object.keys(object.remove(value, ["target", "via_view"])) == {"kind", "database", "collection", "via"}
	value.kind in kinds
	is_string(value.via)
	place(value)
	target(value, keys)
	view(value, keys)
}

# METADATA
# title: A namespace; a collection belongs to a database
# scope: document
place(value) if {
	named(value.database)
	is_string(value.collection)
}

place(value) if {
	value.database == ""
	value.collection == ""
}

# METADATA
# title: No target, or one of a known kind and then no namespace
# scope: document
target(_, keys) if not "target" in keys

target(value, keys) if {
	"target" in keys
	exactly(value.target, {"kind", "id"})
	value.target.kind in target_kinds
	is_string(value.target.id)
	value.database == ""
}

# METADATA
# title: No view, or the whole name of one
# scope: document
view(_, keys) if not "via_view" in keys

view(value, keys) if {
	"via_view" in keys
	exactly(value.via_view, {"database", "collection"})
	named(value.via_view.database)
	named(value.via_view.collection)
	value.database != ""
}

# METADATA
# title: What the call would do, apart from its accesses
command(value) if {
	exactly(value, {"traits", "stages", "fields", "limit"})
	is_array(value.traits)
	count([trait | some trait in value.traits; not trait in traits]) == 0
	strings(value.stages)
	exactly(value.fields, {"filtered", "returned"})
	strings(value.fields.filtered)
	returned(value.fields.returned)
	limit(value.limit)
}

# METADATA
# title: The fields that come back, or all of them
# scope: document
returned("all") := true

returned(value) if strings(value)

# METADATA
# title: How many documents were asked for; null where the call does not say
# scope: document
limit(null) := true

limit(value) if natural(value)

# METADATA
# title: What is true of the request
context(value) if {
	exactly(value, {"time_ns", "client_ip", "protocol", "environment", "approval"})
	natural(value.time_ns)
	is_string(value.client_ip)
	is_string(value.protocol)
	is_string(value.environment)
	approval(value.approval)
}

# METADATA
# title: No approval yet, or the one that was given
# scope: document
approval(null) := true

approval(value) if is_object(value)
