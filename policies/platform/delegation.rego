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
# title: Everything that is owned in the deployment of the call
estate := data.mcp.platform.deployments[routing.deployment]

# METADATA
# title: What the access touches, as the platform's data holds it
# scope: document
holding(access) := estate.targets[access.target.kind]

holding(access) := estate.whole if {
	not access.target
	access.database == ""
}

holding(access) := estate.databases[access.database] if access.database != ""

holding(access) := estate.prefixes[prefix(access.database)] if {
	access.database != ""
	not estate.databases[access.database]
}

# METADATA
# title: The longest declared prefix of a database's name
prefix(database) := longest if {
	declared := [name | some name, _ in estate.prefixes; name != ""; startswith(database, name)]
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
held[index] := found if {
	some index, access in input.accesses
	found := holding(access)
	sound(found)
}

# METADATA
# title: The platform lets the owner decide this access
covered(found, access) if {
	some delegated in found.delegated
	access.kind in delegated.kinds
	names.matches(delegated.collections, access.collection)
}

# METADATA
# title: The platform's own obligations on an access
obligations(found, access) := [obligation |
	some obligation in found.obligations
	access.kind in obligation.kinds
	names.matches(obligation.collections, access.collection)
]

# METADATA
# title: Nobody owns what the access touches
# scope: rule
# custom:
#   code: no_owner
reasons contains {"code": "no_owner", "source": "platform", "access": index} if {
	routing.deployment
	some index, access in input.accesses
	not holding(access)
}

# METADATA
# title: The entry of the owner is not usable
# scope: rule
# custom:
#   code: platform_data_invalid
reasons contains {"code": "platform_data_invalid", "source": "platform", "access": index} if {
	some index, access in input.accesses
	holding(access)
	not held[index]
}

# METADATA
# title: The platform did not give the owner the right to allow this
# scope: rule
# custom:
#   code: not_delegated
reasons contains {"code": "not_delegated", "source": "platform", "access": index} if {
	some index, access in input.accesses
	found := held[index]
	not covered(found, access)
}
