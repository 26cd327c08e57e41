# METADATA
# title: Tests of system.authz
package system.authz_test

import data.system.authz

asked(method, path) := {"method": method, "path": path, "params": {}, "headers": {}}

test_the_four_questions_are_open if {
	every rule in ["decision", "visibility", "approver", "selftest"] {
		authz.allow with input as asked("POST", ["v1", "data", "mcp", "main", rule])
	}
}

test_the_probes_are_open if {
	every path in [["health"]] {
		authz.allow with input as asked("GET", path)
	}
}

test_another_method_on_a_question_is_closed if {
	every method in ["GET", "PUT", "PATCH", "DELETE", "post"] {
		not authz.allow with input as asked(method, ["v1", "data", "mcp", "main", "decision"])
	}
}

test_another_method_on_a_probe_is_closed if {
	not authz.allow with input as asked("POST", ["health"])
}

test_every_other_path_is_closed if {
	every path in [
		[],
		["v1", "data"],
		["v1", "data", "mcp"],
		["v1", "data", "mcp", "main"],
		["v1", "data", "mcp", "main", "decision", "allow"],
		["v1", "data", "mcp", "main", "allow"],
		["v1", "data", "mcp", "platform"],
		["v1", "data", "system", "authz", "allow"],
		["v0", "data", "mcp", "main", "decision"],
		["v1", "query"],
		["v1", "compile"],
		["v1", "policies"],
		["v1", "config"],
		["v1", "data", "mcp", "main", "decision", ""],
		["", "v1", "data", "mcp", "main", "decision"],
	] {
		not authz.allow with input as asked("POST", path)
	}
}

test_what_runs_and_what_does_not_can_be_read if {
	every path in [["v1", "policies"], ["v1", "data", "system", "bundles"], ["v1", "status"]] {
		authz.allow with input as asked("GET", path)
	}
}

test_what_runs_cannot_be_changed_or_asked_about_otherwise if {
	every path in [["v1", "policies"], ["v1", "data", "system", "bundles"], ["v1", "status"]] {
		every method in ["POST", "PUT", "PATCH", "DELETE", "HEAD", "get"] {
			not authz.allow with input as asked(method, path)
		}
		every params in [{"explain": ["full"]}, {"input": ["{}"]}, {"pretty": ["true"]}] {
			not authz.allow with input as object.union(asked("GET", path), {"params": params})
		}
		not authz.allow with input as object.remove(asked("GET", path), ["params"])
	}
}

test_reading_anything_else_is_closed if {
	every path in [
		["v1", "data"],
		["v1", "data", ""],
		["v1", "data", "mcp"],
		["v1", "data", "mcp", "grants"],
		["v1", "data", "system"],
		["v1", "data", "system", "bundles", ""],
		["v1", "data", "system", "bundles", "platform"],
		["v1", "data", "system", "authz"],
		["v0", "data", "system", "bundles"],
		["v1", "policies", ""],
		["v1", "policies", "platform/platform/main.rego"],
		["v1", "config"],
		["v1", "status", ""],
		["v1", "status", "bundles"],
		["", "v1", "status"],
		["v0", "status"],
		["status"],
		["v1", "query"],
		["metrics"],
		["health", "live"],
		["debug"],
	] {
		not authz.allow with input as asked("GET", path)
	}
}

test_an_empty_question_is_closed if {
	not authz.allow with input as {}
}

# METADATA
# title: The request for partial evaluation that is open
compiling := object.union(asked("POST", ["v1", "compile"]), {"body": {
	"query": "data.mcp.platform.visible.owners[owner]; data.mcp.teams[owner].grant[grant]",
	"unknowns": ["input.access", "input.action", "input.command", "input.context"],
	"input": {"subject": {}},
}})

test_the_one_query_for_partial_evaluation_is_open if authz.allow with input as compiling

test_every_other_query_for_partial_evaluation_is_closed if {
	every change in [
		["replace", "/body/query", "data"],
		["replace", "/body/query", "data.mcp.teams[owner].grant[grant]"],
		["replace", "/body/unknowns", ["input"]],
		["replace", "/body/unknowns", ["data"]],
		["remove", "/body/unknowns", null],
		["remove", "/body/input", null],
		["add", "/body/Query", "data"],
		["add", "/body/options", {}],
		["add", "/params/explain", ["full"]],
		["replace", "/method", "GET"],
		["add", "/path/2", "mcp"],
		["remove", "/body", null],
	] {
		not authz.allow with input as json.patch(compiling, [{"op": change[0], "path": change[1], "value": change[2]}])
	}
}
