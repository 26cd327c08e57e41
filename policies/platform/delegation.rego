# METADATA
# title: Who owns what an access touches, and what the platform delegated to them
# description: >-
#   Ownership is looked up in the platform's data, by deployment and database: exact names first, then declared prefixes, the
#   longest first. It is never taken from the question. No owner is a deny. A holding says `{owner, delegated, obligations}`.
# schemas:
#   - input: schema.input
package mcp.platform.delegation

import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.terms
import data.mcp.platform.touched

# METADATA
# title: A database, as the platform's data holds it
# scope: document
owned(database) := data.mcp.platform.deployments[routing.deployment].databases[database]

owned(database) := data.mcp.platform.deployments[routing.deployment].prefixes[prefix(database)] if {
	not data.mcp.platform.deployments[routing.deployment].databases[database]
}

# METADATA
# title: What is no database, as the platform's data holds it
# scope: document
outside(access) := of_target(routing.deployment, access.target)

outside(access) := data.mcp.platform.deployments[routing.deployment].whole if not access.target

# METADATA
# title: The kinds of targets that can have an owner each, by their exact names
named_targets := {"tool", "prompt", "resource", "question"}

# METADATA
# title: What is no database, as the platform's data holds it under its kind and name, else under its kind
# scope: document
of_target(deployment, target) := data.mcp.platform.deployments[deployment].targets[place(target)] if {
	data.mcp.platform.deployments[deployment].targets[place(target)]
} else := data.mcp.platform.deployments[deployment].targets[target.kind]

# METADATA
# title: The name under which one target alone can stand
place(target) := concat("/", [target.kind, target.id]) if target.kind in named_targets

# METADATA
# title: The databases of the call, each as the platform's data holds it
database_holdings := {database: found |
	some database in touched.databases
	database != ""
	found := owned(database)
}

# METADATA
# title: What the accesses touch that is no database, by the access's index
other_holdings := {index: found |
	some index, access in input.accesses
	access.database == ""
	found := outside(access)
}

# METADATA
# title: What each access touches, as the platform's data holds it, by the access's index
holdings := object.union(other_holdings, {index: found |
	some index, access in input.accesses
	found := database_holdings[access.database]
})

# METADATA
# title: The longest declared prefix of a database's name
prefix(database) := longest if {
	prefixes := data.mcp.platform.deployments[routing.deployment].prefixes
	declared := [name | some name, _ in prefixes; name != ""; startswith(database, name)]
	length := max([count(name) | some name in declared])
	some longest in declared
	count(longest) == length
}

# METADATA
# title: Holdings that are of the form that the rules were written for
sound(held) if {
	is_object(held)
	object.keys(held) == {"owner", "delegated", "obligations"}
	is_string(held.owner)
	held.owner != ""
	is_array(held.delegated)
	is_array(held.obligations)
	count([obligation | some obligation in held.obligations; not terms.sound_obligation(obligation)]) == 0
}

# METADATA
# title: The databases of the call whose holding is sound
sound_database_holdings := {database: found | some database, found in database_holdings; sound(found)}

# METADATA
# title: The sound holding of each access, by its index
sound_holdings := object.union({index: found | some index, found in other_holdings; sound(found)}, {index: found |
	some index, access in input.accesses
	found := sound_database_holdings[access.database]
})

# METADATA
# title: The kinds that the platform delegated on every collection of a database
# description: A shortcut; `covered` comes to the same by patterns, only later.
kinds_everywhere := {database: kinds |
	some database, found in sound_database_holdings
	kinds := {kind |
		some delegated in found.delegated
		issuers.counts(delegated)
		"*" in delegated.collections
		some kind in delegated.kinds
	}
}

# METADATA
# title: The accesses of a kind that is delegated everywhere; not the database as a whole
# description: A shortcut; it spares `covered` the matching of patterns.
covered_everywhere := {index |
	some index, access in input.accesses
	access.collection != ""
	access.kind in kinds_everywhere[access.database]
}

# METADATA
# title: The accesses that the platform lets their owner decide
covered := covered_everywhere | {index |
	some index in (object.keys(sound_holdings) - covered_everywhere)
	access := input.accesses[index]
	some delegated in sound_holdings[index].delegated
	issuers.counts(delegated)
	access.kind in delegated.kinds
	names.matches(delegated.collections, access.collection)
}

# METADATA
# title: The accesses without a sound holding
without_holding := touched.indexes - object.keys(sound_holdings)

# METADATA
# title: Nobody owns what the access touches
# scope: rule
# custom:
#   code: no_owner
reasons contains {"code": "no_owner", "source": "platform", "access": index} if {
	routing.deployment
	some index in without_holding
	not holdings[index]
}

# METADATA
# title: The entry of the owner is not usable
# scope: rule
# custom:
#   code: platform_data_invalid
reasons contains {"code": "platform_data_invalid", "source": "platform", "access": index} if {
	some index in without_holding
	holdings[index]
}

# METADATA
# title: The platform did not give the owner the right to allow this
# scope: rule
# custom:
#   code: not_delegated
reasons contains {"code": "not_delegated", "source": "platform", "access": index} if {
	some index in (object.keys(sound_holdings) - covered)
}
