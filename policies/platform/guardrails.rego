# METADATA
# title: What no team can allow
# description: >-
#   Dangerous traits, kinds that are closed, MongoDB's own namespaces, closed hours, and callers that were suspended. All but
#   the system namespaces is data; those are closed by code, so that no slip in a table opens them.
# schemas:
#   - input: schema.input
package mcp.platform.guardrails

import data.mcp.platform.calendar
import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.touched

# METADATA
# title: MongoDB's own databases
system_databases := {"admin", "config", "local"}

# METADATA
# title: The views that accesses go through, by index
named_views := {index: access.via_view | some index, access in input.accesses}

# METADATA
# title: The namespaces that each access names, its own and that of the view that it goes through
# scope: document
named contains [index, access.database, access.collection] if some index, access in input.accesses

named contains [index, view.database, view.collection] if some index, view in named_views

# METADATA
# title: The names of databases that are MongoDB's own
own_databases := {name |
	some name in (touched.databases | {view.database | some view in named_views})
	lower(name) in system_databases
}

# METADATA
# title: The names of collections that are MongoDB's own
own_collections := {name |
	some name in ({access.collection | some access in input.accesses} | {view.collection | some view in named_views})
	startswith(lower(name), "system.")
}

# METADATA
# title: The access names a database of MongoDB itself
# description: Compared without case; MongoDB refuses two databases whose names differ in case only.
# scope: rule
# custom:
#   code: system_namespace
reasons contains {"code": "system_namespace", "source": "platform", "access": index} if {
	some database in own_databases
	some [index, named_database, _] in named
	named_database == database
}

# METADATA
# title: The access names a collection of MongoDB itself
# scope: rule
# custom:
#   code: system_namespace
reasons contains {"code": "system_namespace", "source": "platform", "access": index} if {
	some collection in own_collections
	some [index, _, named_collection] in named
	named_collection == collection
}

# METADATA
# title: The command has a trait that this caller may not use
# description: A trait that is not in the table is granted to no one.
# scope: rule
# custom:
#   code: trait_refused
reasons contains {"code": "trait_refused", "source": "platform", "access": null} if {
	some trait in input.command.traits
	not trait_open(trait)
	not counted(trait)
}

# METADATA
# title: The bounds of bounds.rego decide about it
# description: The command says how much it asks for; whether that is too much is not for the trait to say.
counted("amplifying") if count(input.command.amplifiers) > 0

# METADATA
# title: The table opens a trait to one of the caller's groups
trait_open(trait) if {
	entry := data.mcp.platform.traits[trait]
	issuers.counts(entry)
	names.any_of(entry.groups, input.subject.groups)
}

# METADATA
# title: The kind is closed to everybody
# scope: rule
# custom:
#   code: kind_refused
reasons contains {"code": "kind_refused", "source": "platform", "access": index} if {
	some kind in touched.kinds
	kind in data.mcp.platform.refused_kinds
	some index, access in input.accesses
	access.kind == kind
}

# METADATA
# title: The person is suspended
# scope: rule
# custom:
#   code: suspended
reasons contains {"code": "suspended", "source": "platform", "access": null} if {
	some subject in data.mcp.platform.suspended.subjects
	subject.issuer == input.subject.issuer
	subject.id == input.subject.id
}

# METADATA
# title: The agent, or one earlier in the chain, is suspended
# scope: rule
# custom:
#   code: suspended
reasons contains {"code": "suspended", "source": "platform", "access": null} if {
	some pattern in data.mcp.platform.suspended.agents
	some agent in array.concat([input.actor.id], input.actor.chain)
	names.matches([pattern], agent)
}

# METADATA
# title: It is outside of the hours in which this may be done
# scope: rule
# custom:
#   code: outside_window
reasons contains {"code": "outside_window", "source": "platform", "access": index} if {
	some window in data.mcp.platform.windows
	some index, access in input.accesses
	access.kind in window.kinds
	names.matches(window.databases, access.database)
	not calendar.during(window.hours, input.context.time_ns)
	not glass_broken(window.id)
}

# METADATA
# title: This person may ignore the window for now
# description: Break-glass lifts closed hours, for one named person until one moment, and nothing else.
glass_broken(window) if {
	some glass in data.mcp.platform.break_glass
	glass.issuer == input.subject.issuer
	glass.subject == input.subject.id
	window in glass.windows
	input.context.time_ns < time.parse_rfc3339_ns(glass.until)
}
