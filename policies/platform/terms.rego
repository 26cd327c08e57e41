# METADATA
# title: The parts of grants and obligations, type-checked
# description: >-
#   A part that is empty, of another type, or unknown makes the whole object unsound: an obligation that was meant must never
#   vanish. An empty mask is such a case; it is what a comprehension over missing data gives.
package mcp.platform.terms

import data.mcp.platform.input_check

# METADATA
# title: The parts that oblige
parts := {
	"filter",
	"mask",
	"max_documents",
	"max_time_ms",
	"max_affected",
	"max_bytes",
	"no_collection_scan",
	"approval",
	"names",
}

# METADATA
# title: The most grants that a team may give for one access
most_grants := 256

# METADATA
# title: The form of identifiers
identifiers := `^[a-z0-9][a-z0-9._-]{0,63}$`

# METADATA
# title: Identifiers of grants
identifier(value) if {
	is_string(value)
	regex.match(identifiers, value)
}

# METADATA
# title: One part is of its type
# scope: document
sound("filter", value) if {
	is_object(value)
	count(value) > 0
}

sound("mask", value) if {
	is_collection(value)
	count(value) > 0
	count([entry | some entry in value; not masked(entry)]) == 0
}

sound("max_documents", value) if positive(value)

sound("max_time_ms", value) if positive(value)

sound("max_affected", value) if positive(value)

sound("max_bytes", value) if positive(value)

sound("no_collection_scan", true) := true

sound("approval", "confirm") := true

sound("approval", "second_person") := true

sound("names", "reachable") := true

# METADATA
# title: A set or an array
# scope: document
is_collection(value) if is_set(value)

is_collection(value) if is_array(value)

# METADATA
# title: A masked field, of which nothing is seen or a part
# scope: document
masked(entry) if field(entry)

masked(entry) if {
	is_object(entry)
	object.keys(entry) == {"field", "as"}
	field(entry.field)
	form(entry["as"])
}

# METADATA
# title: What may be left of a masked field
# description: >-
#   `absent`: nothing. `last4`: the last four characters. `bucket:N`: the multiple of N at or below a number; N from 2, exact in
#   every reader of JSON.
form(value) if {
	is_string(value)
	regex.match(`^(absent|last4|bucket:([2-9]|[1-9][0-9]{1,14}))$`, value)
}

# METADATA
# title: The most parts of the path of a masked field
most_parts := 5

# METADATA
# title: A dotted path from the root of a document, without positions in lists
field(value) if {
	is_string(value)
	count(value) <= 256
	parts := split(value, ".")
	count(parts) <= most_parts
	count([part | some part in parts; not regex.match(`^[^$\x00][^\x00]*$`, part)]) == 0
	count([part | some part in parts; regex.match(`^([0-9]+|__proto__)$`, part)]) == 0
}

# METADATA
# title: A whole number from 1
positive(value) if {
	is_number(value)
	value >= 1
	value <= 2147483647
	value == floor(value)
}

# METADATA
# title: An object with an identifier, these further keys, and sound parts
sound_object(value, further) if {
	is_object(value)
	identifier(value.id)
	count(further - object.keys(value)) == 0
	count(((object.keys(value) - {"id"}) - further) - parts) == 0
	count([part | some part, content in value; part in parts; not sound(part, content)]) == 0
}

# METADATA
# title: What the ids of grants start with that no team gave
reserved := "platform."

# METADATA
# title: A grant of a team
sound_grant(value) if {
	sound_object(value, set())
	not startswith(value.id, reserved)
}

# METADATA
# title: The grants that say what they are called and nothing else; sound, and told without looking at parts
# description: >-
#   The conditions of `identifier` are written out here instead of called: a call of a function costs OPA ten times what a
#   comparison does, and this is asked of every grant.
plain(grants) := {grant |
	some grant in grants
	{"id": id} = grant
	is_string(id)
	regex.match(identifiers, id)
}

# METADATA
# title: An obligation of the platform
sound_obligation(value) if {
	sound_object(value, {"kinds", "collections"})
	count(value.kinds) > 0
	input_check.kind_list(value.kinds)
	count(value.collections) > 0
	input_check.strings(value.collections)
}
