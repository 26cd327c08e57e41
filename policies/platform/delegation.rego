# METADATA
# title: Who owns what an access touches, and what the platform delegated to them
# description: >-
#   Ownership is looked up in the platform's data, by deployment and database: exact names first, then declared prefixes, the
#   longest first. It is never taken from the question. No owner is a deny. A holding says `{owner, delegated, obligations}`.
# schemas:
#   - input: schema.input
package mcp.platform.delegation

import data.mcp.platform.names
import data.mcp.platform.routing
import data.mcp.platform.terms

# METADATA
# title: The databases that the call touches
databases := {access.database | some access in input.accesses} - {""}

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
outside(access) := data.mcp.platform.deployments[routing.deployment].targets[access.target.kind]

outside(access) := data.mcp.platform.deployments[routing.deployment].whole if not access.target

# METADATA
# title: What each access touches, as the platform's data holds it, by the access's index
# description: Each database is looked up once; calls with many accesses touch few databases.
holding := object.union(
	{index: found |
		some database in databases
		found := owned(database)
		some index, access in input.accesses
		access.database == database
	},
	{index: found |
		some index, access in input.accesses
		access.database == ""
		found := outside(access)
	},
)

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
# title: The sound holding of each access, by its index
held := {index: found | some index, found in holding; sound(found)}

# METADATA
# title: The accesses that the platform lets their owner decide
covered contains index if {
	some index, found in held
	access := input.accesses[index]
	some delegated in found.delegated
	access.kind in delegated.kinds
	names.matches(delegated.collections, access.collection)
}

# METADATA
# title: Nobody owns what the access touches
# scope: rule
# custom:
#   code: no_owner
reasons contains {"code": "no_owner", "source": "platform", "access": index} if {
	routing.deployment
	some index, _ in input.accesses
	not holding[index]
}

# METADATA
# title: The entry of the owner is not usable
# scope: rule
# custom:
#   code: platform_data_invalid
reasons contains {"code": "platform_data_invalid", "source": "platform", "access": index} if {
	some index, _ in holding
	not held[index]
}

# METADATA
# title: The platform did not give the owner the right to allow this
# scope: rule
# custom:
#   code: not_delegated
reasons contains {"code": "not_delegated", "source": "platform", "access": index} if {
	some index, _ in held
	not index in covered
}
