# METADATA
# title: Names matching patterns
package mcp.platform.names

# METADATA
# title: One of the patterns matches the name
# description: >-
#   A pattern is a glob in which `*` also spans dots (collection names have them). The empty name, a whole database or a whole
#   deployment, is matched by the empty pattern only: `*` means every one, not the whole. The common pattern `*` is looked up,
#   which costs a fifth of a glob.
# scope: document
matches(patterns, name) if name in patterns

matches(patterns, name) if {
	is_string(name)
	name != ""
	"*" in patterns
}

matches(patterns, name) if {
	name != ""
	some pattern in patterns
	glob.match(pattern, null, name)
}

# METADATA
# title: At least one of the held values is listed, or the list says everybody
# scope: document
any_of(listed, _) if "*" in listed

any_of(listed, held) if {
	some value in held
	value in listed
}
