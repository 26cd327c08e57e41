# METADATA
# title: Who may ask OPA what
# description: >-
#   Four questions, each by POST to one fixed path, one fixed query for partial evaluation, one probe, two lists of what runs,
#   and what does not. Everything else of OPA's API is closed: data, any other query, configuration, changes, the v0 API. In force with
#   `opa run --authorization=basic`.
# related_resources:
#   - description: "CVE-2025-46569: a path built from input reached other rules; here no other path is open"
#     ref: https://nvd.nist.gov/vuln/detail/CVE-2025-46569
package system.authz

# METADATA
# title: Closed unless one of the rules below opens it
default allow := false

# METADATA
# title: The four questions of the sidecar
# scope: document
allow if {
	input.method == "POST"
	input.path in [
		["v1", "data", "mcp", "main", "decision"],
		["v1", "data", "mcp", "main", "visibility"],
		["v1", "data", "mcp", "main", "approver"],
		["v1", "data", "mcp", "main", "selftest"],
	]
}

# METADATA
# title: The one query for partial evaluation
# description: >-
#   What the owners within reach could grant to a subject and an actor, for any call. The text of the query and of what is
#   unknown is compared as a whole, so the endpoint evaluates nothing else. Exact keys, because OPA reads the body a second time,
#   into a structure whose names it compares without case: `Query` beside `query` would be another query than the one compared
#   here.
allow if {
	input.method == "POST"
	input.path == ["v1", "compile"]
	input.params == {}
	object.keys(input.body) == {"query", "unknowns", "input"}
	input.body.query == "data.mcp.platform.visible.owners[owner]; data.mcp.teams[owner].grant[grant]"
	input.body.unknowns == ["input.access", "input.action", "input.command", "input.context"]
}

# METADATA
# title: Health
allow if {
	input.method == "GET"
	input.path == ["health"]
}

# METADATA
# title: What this OPA runs
# description: >-
#   The text of all modules and the manifests of all bundles: a sidecar that did not start this OPA lints the one and holds the
#   other to its roots before it believes an answer. Neither holds data, so no grant's values, only how they are used. Any
#   program that reaches this OPA can read them, as it can ask it questions.
allow if {
	input.method == "GET"
	input.path in [["v1", "policies"], ["v1", "data", "system", "bundles"]]
	input.params == {}
}

# METADATA
# title: What this OPA does not run
# description: >-
#   Why the newest content of a bundle is not activated. Nothing else says so: what ran before runs on. It also has OPA's labels and
#   metrics, and quotes the line of a module that does not parse and the URL of a download that fails.
allow if {
	input.method == "GET"
	input.path == ["v1", "status"]
	input.params == {}
}
