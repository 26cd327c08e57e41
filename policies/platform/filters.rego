# METADATA
# title: Which row filters can be used
# description: >-
#   A closed part of the query language: equality, `$in` and ranges over plain values, joined by `$and` and `$or`. A grant
#   whose filter is anything else, or holds an object that came with a claim, is no grant: a claim is never more than a value.
#   The sidecar reads filters by the same rules (`sidecar/obligations/row_filter.py`).
# schemas:
#   - input: schema.input
package mcp.platform.filters

# METADATA
# title: What joins filters
joins := {"$and", "$or"}

# METADATA
# title: What compares a field with one value
comparisons := {"$eq", "$gt", "$gte", "$lt", "$lte"}

# METADATA
# title: Values that extended JSON spells as an object, and the one form of each that is taken
types := {
	"$date": `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{3})?Z$`,
	"$oid": `^[0-9a-f]{24}$`,
}

# METADATA
# title: The filter can be used
usable(filter) if {
	count([at | walk(filter, [at, part]); not fits(at, part)]) == 0
	count(brought(filter)) == 0
}

# METADATA
# title: The objects of a filter that came with a claim
brought(filter) := {part |
	walk(filter, [_, part])
	is_object(part)
	walk(input.subject.claims, [at, part])
	count(at) > 0
}

# METADATA
# title: A part of a filter may stand where it does
# scope: document
fits([], part) if query(part)

fits(at, part) if {
	is_number(at[count(at) - 1])
	at[count(at) - 2] in joins
	query(part)
}

fits(at, part) if {
	is_number(at[count(at) - 1])
	at[count(at) - 2] == "$in"
	plain(part)
}

fits(at, part) if {
	form := types[at[count(at) - 1]]
	regex.match(form, part)
}

fits(at, part) if {
	at[count(at) - 1] in (joins | {"$in"})
	is_array(part)
	count(part) > 0
}

fits(at, part) if {
	at[count(at) - 1] in comparisons
	plain(part)
}

fits(at, part) if {
	on_field(at)
	plain(part)
}

fits(at, part) if {
	on_field(at)
	is_object(part)
	count(part) > 0
	count(object.keys(part) - (comparisons | {"$in"})) == 0
}

# METADATA
# title: What this filter says of a field
on_field(at) if {
	is_string(at[count(at) - 1])
	not startswith(at[count(at) - 1], "$")
}

# METADATA
# title: A filter, or one of several that are joined
query(part) if {
	is_object(part)
	count(part) > 0
	count([key | some key, _ in part; startswith(key, "$"); not key in joins]) == 0
}

# METADATA
# title: A value that a field can be held to
# scope: document
plain(value) if {
	is_string(value)
	value != ""
}

plain(value) if is_number(value)

plain(value) if is_boolean(value)

plain(value) if {
	is_object(value)
	count(value) == 1
	some type, _ in value
	types[type]
}
