# METADATA
# title: Who may ask OPA what
# description: >-
#   Three questions, each by POST to one fixed path, and two probes. Everything else of OPA's API is closed: policies,
#   data, ad-hoc queries, compilation, configuration, the v0 API. In force with `opa run --authorization=basic`.
# related_resources:
#   - description: "CVE-2025-46569: a path built from input reached other rules; here no other path is open"
#     ref: https://nvd.nist.gov/vuln/detail/CVE-2025-46569
package system.authz

# METADATA
# title: Closed unless one of the rules below opens it
default allow := false

# METADATA
# title: The three questions of the sidecar
# scope: document
allow if {
	input.method == "POST"
	input.path in [
		["v1", "data", "mcp", "main", "decision"],
		["v1", "data", "mcp", "main", "visibility"],
		["v1", "data", "mcp", "main", "selftest"],
	]
}

# METADATA
# title: Health and metrics
allow if {
	input.method == "GET"
	input.path in [["health"], ["metrics"]]
}
