# METADATA
# title: Tests of system.authz
package system.authz_test

import data.system.authz

asked(method, path) := {"method": method, "path": path, "params": {}, "headers": {}}

test_the_three_questions_are_open if {
	every rule in ["decision", "visibility", "selftest"] {
		authz.allow with input as asked("POST", ["v1", "data", "mcp", "main", rule])
	}
}

test_the_probes_are_open if {
	every path in [["health"], ["metrics"]] {
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

test_reading_what_is_loaded_is_closed if {
	every path in [["v1", "policies"], ["v1", "data"], ["v1", "config"], ["v1", "status"], ["health", "live"], ["debug"]] {
		not authz.allow with input as asked("GET", path)
	}
}

test_an_empty_question_is_closed if {
	not authz.allow with input as {}
}
