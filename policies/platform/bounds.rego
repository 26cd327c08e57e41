# METADATA
# title: How much a command may ask for
# description: >-
#   A few bytes of a read can take a server's memory: so many buckets, a range so long, a join inside a join. The sidecar says
#   what a command asks for; how much is allowed is data. What is not in the table is not allowed at all, and neither is a number
#   that is computed, for it is not known beforehand. The trait `amplifying` of a group lifts all of these bounds for it.
# schemas:
#   - input: schema.input
package mcp.platform.bounds

import data.mcp.platform.guardrails

# METADATA
# title: The bounds that the command is over
exceeded := {{"construct": amplifier.construct, "most": most(amplifier.construct)} |
	some amplifier in input.command.amplifiers
	over(amplifier.number, most(amplifier.construct))
}

# METADATA
# title: The most that is allowed of a construct
most(construct) := object.get(data.mcp.platform.amplifiers, construct, 0)

# METADATA
# title: A number is over a bound
# scope: document
# description: A number that is not known is.
over(null, _) := true

over(number, bound) if number > bound

# METADATA
# title: The command asks for more than is allowed, and this caller may not
# scope: rule
# custom:
#   code: trait_refused
reasons contains {"code": "trait_refused", "source": "platform", "access": null, "bound": bound} if {
	some bound in exceeded
	not guardrails.trait_open("amplifying")
}
