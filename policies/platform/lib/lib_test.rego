# METADATA
# title: Tests of mcp.lib
package mcp.lib_test

import data.mcp.lib

# METADATA
# title: A question as a team sees it
question(kind, database, collection) := {
	"subject": {"groups": ["staff"], "roles": ["clerk"]},
	"actor": {"id": "desk"},
	"access": {"kind": kind, "database": database, "collection": collection},
	"command": {"traits": ["upsert"]},
	"context": {"time_ns": 1704628800000000000},
}

orders := question("read", "shop", "orders")

test_kinds if {
	lib.reads with input as orders
	not lib.reads with input as question("metadata", "shop", "orders")
	lib.reads_metadata with input as question("metadata", "shop", "orders")
	not lib.reads_metadata with input as orders
	lib.inserts with input as question("insert", "shop", "orders")
	not lib.inserts with input as question("update", "shop", "orders")
	lib.drops with input as question("drop", "shop", "orders")
	not lib.drops with input as question("delete", "shop", "orders")
	every kind in ["insert", "update", "delete"] {
		lib.writes with input as question(kind, "shop", "orders")
	}
	every kind in ["read", "drop", "create", "index", "admin"] {
		not lib.writes with input as question(kind, "shop", "orders")
	}
}

test_whose_a_group_or_an_agent_is if {
	home := "https://idp.example"
	asked := object.union(orders, {"subject": {"type": "user", "issuer": home, "groups": ["staff"]}})
	elsewhere := object.union(asked, {"subject": {"type": "service", "issuer": "https://idp.example/"}})
	lib.issued_by(home) with input as asked
	not lib.issued_by(home) with input as elsewhere
	lib.in_group_of(home, "staff") with input as asked
	not lib.in_group_of(home, "staff") with input as elsewhere
	not lib.in_group_of(home, "guests") with input as asked
	lib.via_agent_of(home, "desk") with input as asked
	not lib.via_agent_of(home, "desk") with input as elsewhere
	not lib.via_agent_of(home, "other") with input as asked
	lib.is_person with input as asked
	not lib.is_person with input as elsewhere
}

test_places if {
	lib.on("shop", ["orders"]) with input as orders
	lib.on("shop", ["customers", "ord*"]) with input as orders
	not lib.on("shop", ["orders"]) with input as question("read", "other", "orders")
	not lib.on("shop", ["order"]) with input as orders
	not lib.on("shop", []) with input as orders
}

test_places_in_several_databases if {
	books := ["ledger", "invoices_*"]
	every database in ["ledger", "invoices_2025", "invoices_"] {
		lib.on_any(books, ["paid", "open_*"]) with input as question("read", database, "open_march")
		not lib.on_any(books, ["paid", "open_*"]) with input as question("read", database, "drafts")
	}
	every database in ["ledgers", "my_invoices_2025", "invoices", ""] {
		not lib.on_any(books, ["*"]) with input as question("read", database, "paid")
	}
	not lib.on_any([], ["*"]) with input as orders
	not lib.on_any(["*"], ["*"]) with input as question("metadata", "", "")
	lib.on_any([""], [""]) with input as question("metadata", "", "")
}

# METADATA
# title: A read of which these paths are looked at and come back
reading(filtered, returned) := object.union(orders, {"command": {"fields": {"filtered": filtered, "returned": returned}}})

test_counting_is_a_read_of_which_nothing_comes_back if {
	lib.counts with input as reading(["status"], [])
	not lib.counts with input as reading([], "all")
	not lib.counts with input as reading([], [""])
	not lib.counts with input as reading(["status"], ["status"])
	not lib.counts with input as orders
	every kind in ["insert", "metadata", "export", "delete"] {
		not lib.counts with input as object.union(reading([], []), {"access": {"kind": kind}})
	}
}

test_returning_only_some_fields if {
	lib.returns_only(["ward", "age"]) with input as reading([], ["ward", "age.group"])
	lib.returns_only({"ward"}) with input as reading(["salary"], [])
	not lib.returns_only(["ward"]) with input as reading([], ["ward", "_id"])
	not lib.returns_only(["ward"]) with input as reading([], ["wards"])
	not lib.returns_only(["ward"]) with input as reading([], [""])
	not lib.returns_only([""]) with input as reading([], [""])
	not lib.returns_only([]) with input as reading([], [])
	not lib.returns_only(["ward"]) with input as reading([], "all")
	not lib.returns_only(["all", ""]) with input as reading([], "all")
	not lib.returns_only(["ward"]) with input as orders
	every kind in ["insert", "metadata", "export", "delete"] {
		not lib.returns_only(["ward"]) with input as object.union(reading([], ["ward"]), {"access": {"kind": kind}})
	}
}

test_looking_only_at_some_fields if {
	lib.looks_only_at(["status", "customer"]) with input as reading(["status", "customer.city"], [])
	lib.looks_only_at({"customer.city"}) with input as reading(["customer.city"], [])
	lib.looks_only_at(["status"]) with input as reading([], [])
	not lib.looks_only_at(["status"]) with input as reading(["status", "salary"], [])
	not lib.looks_only_at(["status"]) with input as reading(["status_code"], [])
	not lib.looks_only_at(["customer.city"]) with input as reading(["customer"], [])
	not lib.looks_only_at(["status"]) with input as reading([""], [])
	not lib.looks_only_at([""]) with input as reading([""], [])
	not lib.looks_only_at([]) with input as reading([], [])
	not lib.looks_only_at(["status"]) with input as orders
}

test_the_whole_database_is_named_by_the_empty_pattern_only if {
	lib.on("shop", ["", "*"]) with input as question("metadata", "shop", "")
	not lib.on("shop", ["*"]) with input as question("metadata", "shop", "")
	not lib.on("shop", [""]) with input as orders
}

test_names if {
	lib.named(["a.*"], "a.b.c")
	not lib.named(["a.*"], "b.a.c")
}

test_people_and_agents if {
	lib.in_group("staff") with input as orders
	not lib.in_group("guests") with input as orders
	lib.in_any_group({"guests", "staff"}) with input as orders
	not lib.in_any_group(set()) with input as orders
	lib.has_role("clerk") with input as orders
	not lib.has_role("staff") with input as orders
	lib.via_agent("desk") with input as orders
	not lib.via_agent("desktop") with input as orders
	lib.has_trait("upsert") with input as orders
	not lib.has_trait("cost") with input as orders
}

test_hours if {
	hours := {"from": "08:00", "to": "18:00", "timezone": "UTC"}
	lib.during(object.union(hours, {"days": {"Sunday"}})) with input as orders
	not lib.during(object.union(hours, {"days": lib.weekdays})) with input as orders
}

test_being_asked_is_about_the_exact_kind_of_question if {
	asked := object.union(question("execute", "", ""), {"access": {"target": {"kind": "question", "id": "sampling"}}})
	lib.asks({"sampling", "roots"}) with input as asked
	lib.asks(["sampling"]) with input as asked
	every kinds in [set(), {"elicitation"}, {"Sampling"}, {"*"}] {
		not lib.asks(kinds) with input as asked
	}
	every change in [{"kind": "read"}, {"target": {"kind": "tool", "id": "sampling"}}] {
		not lib.asks({"sampling"}) with input as object.union(asked, {"access": change})
	}
	not lib.asks({"sampling"}) with input as question("execute", "", "")
}

test_running_a_tool_is_about_its_exact_name if {
	run := object.union(question("execute", "", ""), {"access": {"target": {"kind": "tool", "id": "report"}}})
	lib.runs({"report", "other"}) with input as run
	lib.runs(["report"]) with input as run
	every names in [set(), {"reports"}, {"Report"}, {"*"}] {
		not lib.runs(names) with input as run
	}
	every change in [{"kind": "read"}, {"target": {"kind": "prompt", "id": "report"}}] {
		not lib.runs({"report"}) with input as object.union(run, {"access": change})
	}
	not lib.runs({"report"}) with input as question("execute", "", "")
}

test_masked_fields_of_which_something_is_left if {
	lib.last4("card") == {"field": "card", "as": "last4"}
	lib.bucket("salary", 10000) == {"field": "salary", "as": "bucket:10000"}
}
