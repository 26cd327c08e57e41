# METADATA
# title: The set that the platform's tests are about
# description: Not the shipped data; so an operator's tables never break the platform's own tests.
package mcp.platform.fixture_test

kinds := ["read", "metadata", "insert", "update"]

# METADATA
# title: Data of the platform, one table a key
tables := {
	"servers": {"ro": {"deployment": "east"}, "rw": {"deployment": "east"}, "west": {"deployment": "west"}},
	"routes": [
		{"id": "r", "groups": ["staff"], "agents": ["*"], "scopes": ["*"], "kinds": ["read", "metadata"], "server": "ro"},
		{"id": "w", "groups": ["staff"], "agents": ["desk*"], "scopes": ["write"], "kinds": kinds, "server": "rw"},
	],
	"deployments": {
		"east": {
			"whole": holding("platform", [""], []),
			"databases": {
				"shop": holding("red", ["", "*"], []),
				"blue": holding("blue", ["orders*"], []),
				"tmp_own": holding("blue", ["*"], []),
				"common": holding("platform", ["*"], []),
			},
			"prefixes": {"tmp_": holding("red", ["*"], []), "tmp_blue_": holding("blue", ["*"], []), "": holding("red", ["*"], [])},
			"targets": {"cluster": holding("red", [""], [])},
		},
		"west": {"databases": {}, "prefixes": {}, "targets": {}},
	},
	"grants": [{
		"id": "list",
		"groups": ["staff"],
		"kinds": ["metadata"],
		"deployments": ["east"],
		"databases": [""],
		"collections": [""],
	}],
	"agents": {
		"default": {"kinds": ["read", "metadata"], "servers": ["*"], "deployments": ["*"]},
		"registered": {"desk": {"kinds": kinds, "servers": ["r*"], "deployments": ["east"]}},
	},
	"scopes": {"read": ["read", "metadata"], "write": ["insert", "update"]},
	"traits": {"unbounded": {"groups": ["*"]}, "upsert": {"groups": ["writers"]}},
	"amplifiers": {"$bucketAuto.buckets": 100, "$topN.n": 10},
	"refused_kinds": ["connect"],
	"windows": [],
	"break_glass": [],
	"suspended": {"subjects": [], "agents": []},
}

# METADATA
# title: A holding with one delegation
holding(owner, collections, obligations) := {
	"owner": owner,
	"delegated": [{"kinds": kinds, "collections": collections}],
	"obligations": obligations,
}

# METADATA
# title: Teams that grant everything and deny nothing
teams := {"red": {"grant": {{"id": "all"}}, "deny": set()}, "blue": {"grant": {{"id": "all"}}, "deny": set()}}

# METADATA
# title: A read of one collection
read(database, collection) := {"kind": "read", "database": database, "collection": collection, "via": "/arguments/collection"}

# METADATA
# title: A question that is allowed
question := {
	"v": 1,
	"subject": {
		"type": "user",
		"id": "ann",
		"issuer": "https://idp.example",
		"groups": ["staff"],
		"roles": ["clerk"],
		"scopes": ["read", "write"],
		"claims": {"region": "EU"},
	},
	"actor": {"type": "agent", "id": "desk", "chain": []},
	"action": {"method": "tools/call", "tool": "find"},
	"accesses": [read("shop", "orders")],
	"command": {"traits": [], "stages": [], "fields": {"filtered": [], "returned": "all"}, "limit": null},
	# A Sunday, noon in UTC.
	"context": {
		"time_ns": 1704628800000000000,
		"client_ip": "192.0.2.1",
		"protocol": "2025-11-25",
		"environment": "test",
		"approval": null,
	},
}

# METADATA
# title: The question about the list of tools
listing := object.union(object.remove(question, ["accesses", "command", "action"]), {
	"action": {"method": "tools/list"},
	"tools": {
		"find": needing(["read"]),
		"insert-many": needing(["insert"]),
		"aggregate": {"needs": ["read"], "may_need": ["insert"]},
		"copy": needing(["read", "insert"]),
		"any": {"needs": [], "may_need": ["insert", "connect"]},
		"connect": needing(["connect"]),
		"odd": needing([]),
	},
	"possible": null,
})

# METADATA
# title: A tool all of whose calls need these kinds
needing(needs) := {"needs": needs, "may_need": []}

# METADATA
# title: One way in which an owner could grant something; null stands for everything
possible(owner, kinds_, databases, collections) := {
	"owner": owner,
	"kinds": kinds_,
	"databases": databases,
	"collections": collections,
	"targets": null,
}

# METADATA
# title: The same question with other accesses
about(accesses) := object.union(question, {"accesses": accesses})

# METADATA
# title: The decision on a question, with some tables replaced
decide(asked, changed, authors) := answer if {
	answer := data.mcp.main.decision with input as asked
		with data.mcp.teams as authors
		with data.mcp.platform.servers as object.get(changed, "servers", tables.servers)
		with data.mcp.platform.routes as object.get(changed, "routes", tables.routes)
		with data.mcp.platform.deployments as object.get(changed, "deployments", tables.deployments)
		with data.mcp.platform.grants as object.get(changed, "grants", tables.grants)
		with data.mcp.platform.agents as object.get(changed, "agents", tables.agents)
		with data.mcp.platform.scopes as object.get(changed, "scopes", tables.scopes)
		with data.mcp.platform.scope_issuers as object.get(changed, "scope_issuers", {})
		with data.mcp.platform.traits as object.get(changed, "traits", tables.traits)
		with data.mcp.platform.amplifiers as object.get(changed, "amplifiers", tables.amplifiers)
		with data.mcp.platform.limits as object.get(changed, "limits", [])
		with data.mcp.platform.refused_kinds as object.get(changed, "refused_kinds", tables.refused_kinds)
		with data.mcp.platform.windows as object.get(changed, "windows", tables.windows)
		with data.mcp.platform.break_glass as object.get(changed, "break_glass", tables.break_glass)
		with data.mcp.platform.suspended as object.get(changed, "suspended", tables.suspended)
}

# METADATA
# title: The list of tools, with some tables replaced
list(asked, changed) := answer if {
	answer := data.mcp.main.visibility with input as asked
		with data.mcp.platform.servers as object.get(changed, "servers", tables.servers)
		with data.mcp.platform.routes as object.get(changed, "routes", tables.routes)
		with data.mcp.platform.deployments as object.get(changed, "deployments", tables.deployments)
		with data.mcp.platform.grants as object.get(changed, "grants", tables.grants)
		with data.mcp.platform.agents as object.get(changed, "agents", tables.agents)
		with data.mcp.platform.scopes as object.get(changed, "scopes", tables.scopes)
		with data.mcp.platform.scope_issuers as object.get(changed, "scope_issuers", {})
		with data.mcp.platform.traits as object.get(changed, "traits", tables.traits)
		with data.mcp.platform.amplifiers as object.get(changed, "amplifiers", tables.amplifiers)
		with data.mcp.platform.refused_kinds as object.get(changed, "refused_kinds", tables.refused_kinds)
		with data.mcp.platform.windows as object.get(changed, "windows", tables.windows)
		with data.mcp.platform.break_glass as object.get(changed, "break_glass", tables.break_glass)
		with data.mcp.platform.suspended as object.get(changed, "suspended", tables.suspended)
}

# METADATA
# title: The owners within a caller's reach
owners(caller) := answer if {
	answer := data.mcp.platform.visible.owners with input as caller
		with data.mcp.platform.servers as tables.servers
		with data.mcp.platform.routes as tables.routes
		with data.mcp.platform.deployments as tables.deployments
		with data.mcp.platform.agents as tables.agents
}

# METADATA
# title: The codes of a decision's reasons
codes(decision) := {reason.code | some reason in decision.reasons}

# METADATA
# title: The question is allowed as the fixture stands
allowed(asked) if decide(asked, {}, teams).allow == true

# METADATA
# title: The question is refused for exactly this, and nothing of it can be forwarded
refused(decision, reasons) if {
	decision.allow == false
	decision.approval == null
	decision.reasons == reasons
}

# METADATA
# title: A reason of the platform's
reason(code, access) := {"code": code, "source": "platform", "access": access}
