# METADATA
# title: What the call touches, gathered once
# description: Most calls touch few kinds and databases, however many accesses they have; what can be asked of those is.
# schemas:
#   - input: schema.input
package mcp.platform.touched

# METADATA
# title: The places of the accesses in the question
indexes := {index | some index, _ in input.accesses}

# METADATA
# title: All kinds of the call
kinds := {access.kind | some access in input.accesses}

# METADATA
# title: The databases of the accesses; the empty name where one touches something else
databases := {access.database | some access in input.accesses}
