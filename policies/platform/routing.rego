# METADATA
# title: Which server instance a call goes to
# description: >-
#   The first route, in the order of the table, whose groups, agents and scopes fit the caller and whose kinds cover all kinds
#   of the call. One call goes to one server. The server's deployment decides who owns what.
# schemas:
#   - input: schema.input
package mcp.platform.routing

import data.mcp.platform.issuers
import data.mcp.platform.names
import data.mcp.platform.touched

# METADATA
# title: A route that this caller may take
caller_fits(route) if {
	caller_could_fit(route)
	names.any_of(route.scopes, input.subject.scopes)
}

# METADATA
# title: A route that this caller may take with the right scope
caller_could_fit(route) if {
	issuers.counts(route)
	names.any_of(route.groups, input.subject.groups)
	names.matches(route.agents, input.actor.id)
}

# METADATA
# title: The routes that this caller may take for this call, in order
routes := [route |
	count(touched.kinds) > 0
	some route in data.mcp.platform.routes
	count([kind | some kind in touched.kinds; kind in route.kinds]) == count(touched.kinds)
	caller_fits(route)
]

# METADATA
# title: The server of the first route; empty where there is none
# scope: document
default server := ""

server := name if {
	name := routes[0].server
	data.mcp.platform.servers[name].deployment
}

# METADATA
# title: The deployment that the server is connected to
deployment := data.mcp.platform.servers[server].deployment

# METADATA
# title: Nobody may take this caller's call anywhere
# custom:
#   code: no_route
reasons contains {"code": "no_route", "source": "platform", "access": null} if server == ""
