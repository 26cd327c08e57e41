# METADATA
# title: For authors of team policies
# description: >-
#   Short names for what grants usually ask, all about the one access in question and its caller. `import data.mcp.lib`. Each is
#   true or undefined, so that a condition which cannot be told never opens anything. Think twice before `not`: before a rule it
#   turns what cannot be told into a yes, and before a call with an undefined argument it is itself undefined.
# schemas:
#   - input: schema.question
package mcp.lib

import data.mcp.platform.calendar
import data.mcp.platform.filters
import data.mcp.platform.names

# METADATA
# title: The access reads documents
reads if input.access.kind == "read"

# METADATA
# title: The access reads documents, and no part of one comes back, such as a count
# description: >-
#   Decided by what the command returns, whichever tool it is of. The number of matches still answers what the filter asks:
#   together with `looks_only_at`, nothing can be asked about other fields.
counts if {
	input.access.kind == "read"
	input.command.fields.returned == []
}

# METADATA
# title: The command looks at no fields but these and what is inside them
# description: >-
#   In filters, sorts and expressions. A command that looks at no field at all passes; one of which it cannot be told does not.
looks_only_at(fields) if {
	count(fields) > 0
	every path in input.command.fields.filtered {
		inside(path, fields)
	}
}

# METADATA
# title: The access reads documents, and nothing of them comes back but these fields and what is inside them
# description: >-
#   For numbers by group: `lib.returns_only(["diagnosis"])` lets a pipeline count the documents of each diagnosis. The `_id` of
#   a document comes back unless a projection leaves it out. A command of which it cannot be told does not pass.
returns_only(fields) if {
	input.access.kind == "read"
	is_array(input.command.fields.returned)
	count(fields) > 0
	every path in input.command.fields.returned {
		inside(path, fields)
	}
}

# METADATA
# title: The path is one of these fields, or lies inside one
inside(path, fields) if {
	some field in fields
	field != ""
	startswith(concat("", [path, "."]), concat("", [field, "."]))
}

# METADATA
# title: The access reads names, schemas, indexes or statistics
reads_metadata if input.access.kind == "metadata"

# METADATA
# title: The access inserts documents
inserts if input.access.kind == "insert"

# METADATA
# title: The access changes documents
writes if input.access.kind in {"insert", "update", "delete"}

# METADATA
# title: The access drops a collection or a database
drops if input.access.kind == "drop"

# METADATA
# title: The access runs one of these tools that are outside of the catalog, by exact name
# description: >-
#   A tool that `generic_tools` of the settings names. What of its arguments the settings show is `input.command.arguments`, by
#   JSON pointer: `input.command.arguments["/region"] == "EU"`.
runs(tools) if {
	input.access.kind == "execute"
	input.access.target.kind == "tool"
	input.access.target.id in tools
}

# METADATA
# title: The access is a question of one of these kinds that a server asks the caller's client during a call
# description: >-
#   `elicitation` (the user fills in a form), `sampling` (the client's model), `roots` (the client's folders). The tool that is
#   called is `input.action.tool`, and is an access of its own, with a grant of its own.
asks(kinds) if {
	input.access.kind == "execute"
	input.access.target.kind == "question"
	input.access.target.id in kinds
}

# METADATA
# title: The access is in this database, on a collection that matches one of the patterns
# description: >-
#   Patterns are globs; `*` also spans dots. The database as a whole (list-collections) is the collection "", which only the
#   pattern "" matches.
on(database, collections) if {
	input.access.database == database
	names.matches(collections, input.access.collection)
}

# METADATA
# title: The access is in a database that matches one of the patterns, on a collection that matches one of the others
# description: >-
#   For what lies in several databases, or in all whose names begin alike: `lib.on_any(["sales", "invoices_*"], ["*"])`. The
#   deployment as a whole is the database "", which only the pattern "" matches.
on_any(databases, collections) if {
	names.matches(databases, input.access.database)
	names.matches(collections, input.access.collection)
}

# METADATA
# title: One of the globs matches the name
named(patterns, name) if names.matches(patterns, name)

# METADATA
# title: The user is in this group
in_group(group) if group in input.subject.groups

# METADATA
# title: The user is in one of these groups
in_any_group(groups) if {
	some group in groups
	group in input.subject.groups
}

# METADATA
# title: The user comes from this issuer
# description: >-
#   Groups, roles and agents are names that an issuer gives. Where several issuers are trusted, a grant that asks for a group
#   asks whose it is too.
issued_by(issuer) if input.subject.issuer == issuer

# METADATA
# title: The user is in this group of this issuer
in_group_of(issuer, group) if {
	input.subject.issuer == issuer
	group in input.subject.groups
}

# METADATA
# title: The value of this claim, where it is one plain value
# description: >-
#   For row filters: `{"region": lib.claim("region")}`. A claim that is missing, null, empty, a list or an object is undefined,
#   and then the grant is too.
claim(name) := value if {
	value := input.subject.claims[name]
	filters.plain(value)
}

# METADATA
# title: The condition of a row filter that a field is one of the values of this claim
# description: >-
#   `{"region": lib.one_of_claim("regions")}`. The claim is one plain value, or a list of them that is not empty; else it is
#   undefined.
# scope: document
one_of_claim(name) := {"$in": [claim(name)]}

one_of_claim(name) := {"$in": values} if {
	values := input.subject.claims[name]
	is_array(values)
	count(values) > 0
	count([value | some value in values; not filters.plain(value)]) == 0
}

# METADATA
# title: A masked field of which the last four characters are left
# description: >-
#   `"mask": {"ssn", lib.last4("card")}`. Of a text of more than four characters, and of a whole number by its digits; of
#   anything else nothing.
last4(field) := {"field": field, "as": "last4"}

# METADATA
# title: A masked field of which the multiple of a width at or below its number is left
# description: >-
#   `"mask": {lib.bucket("salary", 10000)}`. The width is a whole number from 2; of what is no number nothing is left.
bucket(field, width) := {"field": field, "as": sprintf("bucket:%d", [width])}

# METADATA
# title: The user has this role
has_role(role) if role in input.subject.roles

# METADATA
# title: This agent acts for the user
via_agent(agent) if input.actor.id == agent

# METADATA
# title: This agent of this issuer acts for the user
via_agent_of(issuer, agent) if {
	input.subject.issuer == issuer
	input.actor.id == agent
}

# METADATA
# title: A person speaks through the agent, and not a service for itself
is_person if input.subject.type == "user"

# METADATA
# title: The command has this trait
has_trait(trait) if trait in input.command.traits

# METADATA
# title: The request came within these hours
# description: >-
#   `{"days": {"Monday", …}, "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}`; `from` is within, `to` is not.
during(hours) if calendar.during(hours, input.context.time_ns)

# METADATA
# title: Monday to Friday
weekdays := {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday"}
