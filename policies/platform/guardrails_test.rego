# METADATA
# title: Tests of mcp.platform.guardrails and calendar
package mcp.platform.guardrails_test

import data.mcp.platform.calendar
import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.guardrails

insert := {"kind": "insert", "database": "shop", "collection": "orders", "via": ""}

# METADATA
# title: The fixture's question with traits
with_traits(traits) := json.patch(fixture.question, [{"op": "replace", "path": "/command/traits", "value": traits}])

# METADATA
# title: Closed on the fixture's day, a Sunday at noon
window := {
	"id": "weekdays",
	"kinds": ["insert"],
	"databases": ["shop"],
	"hours": {"days": ["Monday", "Friday"], "from": "08:00", "to": "18:00", "timezone": "UTC"},
}

glass := {"issuer": "https://idp.example", "subject": "ann", "until": "2024-01-07T12:00:01Z", "windows": ["weekdays"]}

test_system_namespaces_are_closed_whatever_the_data_says if {
	every access in [
		fixture.read("admin", "x"),
		fixture.read("Admin", "x"),
		fixture.read("config", ""),
		fixture.read("local", "oplog.rs"),
		fixture.read("shop", "system.profile"),
		fixture.read("shop", "System.views"),
		object.union(fixture.read("shop", "orders"), {"via_view": {"database": "shop", "collection": "system.views"}}),
	] {
		databases := {name: fixture.holding("red", ["", "*"], []) | some name in ["admin", "Admin", "config", "local", "shop"]}
		changed := {"deployments": {"east": {"databases": databases, "prefixes": {}, "targets": {}}}}
		fixture.refused(fixture.decide(fixture.about([access]), changed, fixture.teams), [fixture.reason("system_namespace", 0)])
	}
}

test_names_that_only_resemble_them_are_not if {
	every collection in ["systems", "my.system.x", "system"] {
		fixture.allowed(fixture.about([fixture.read("shop", collection)]))
	}
	reasons := guardrails.reasons with input as fixture.about([fixture.read("administration", "x")])
	{reason | some reason in reasons; reason.code == "system_namespace"} == set()
}

test_a_trait_is_open_to_the_groups_of_the_table if {
	fixture.allowed(with_traits(["unbounded"]))
	asked := with_traits(["upsert"])
	fixture.refused(fixture.decide(asked, {}, fixture.teams), [fixture.reason("trait_refused", null)])
	writer := json.patch(asked, [{"op": "add", "path": "/subject/groups/-", "value": "writers"}])
	fixture.allowed(writer)
}

test_a_trait_that_is_not_in_the_table_is_nobodys if {
	asked := with_traits(["unbounded", "server_side_js"])
	fixture.refused(fixture.decide(asked, {}, fixture.teams), [fixture.reason("trait_refused", null)])
}

test_a_closed_kind_is_closed_to_everybody if {
	decision := fixture.decide(fixture.question, {"refused_kinds": ["read"]}, fixture.teams)
	fixture.refused(decision, [fixture.reason("kind_refused", 0)])
	fixture.decide(fixture.question, {"refused_kinds": ["insert"]}, fixture.teams).allow == true
	both := fixture.decide(fixture.about([fixture.read("shop", "orders"), insert]), {"refused_kinds": ["insert"]}, fixture.teams)
	fixture.refused(both, [fixture.reason("kind_refused", 1)])
}

test_a_suspended_person_does_nothing if {
	suspended := {"subjects": [{"issuer": "https://idp.example", "id": "ann"}], "agents": []}
	decision := fixture.decide(fixture.question, {"suspended": suspended}, fixture.teams)
	fixture.refused(decision, [fixture.reason("suspended", null)])
}

test_the_same_name_at_another_issuer_is_another_person if {
	suspended := {"subjects": [{"issuer": "https://other.example", "id": "ann"}], "agents": []}
	fixture.decide(fixture.question, {"suspended": suspended}, fixture.teams).allow == true
	suspended_other := {"subjects": [{"issuer": "https://idp.example", "id": "bob"}], "agents": []}
	fixture.decide(fixture.question, {"suspended": suspended_other}, fixture.teams).allow == true
}

test_a_suspended_agent_does_nothing_also_through_others if {
	suspended := {"suspended": {"subjects": [], "agents": ["desk"]}}
	fixture.refused(fixture.decide(fixture.question, suspended, fixture.teams), [fixture.reason("suspended", null)])
	other := json.patch(fixture.question, [{"op": "replace", "path": "/actor/id", "value": "other"}])
	fixture.decide(other, suspended, fixture.teams).allow == true
	chained := json.patch(other, [{"op": "replace", "path": "/actor/chain", "value": ["desk"]}])
	fixture.refused(fixture.decide(chained, suspended, fixture.teams), [fixture.reason("suspended", null)])
	elsewhere := json.patch(other, [{"op": "replace", "path": "/actor/chain", "value": ["desktop"]}])
	fixture.decide(elsewhere, suspended, fixture.teams).allow == true
}

test_outside_of_its_window_a_kind_is_closed if {
	decision := fixture.decide(fixture.about([insert]), {"windows": [window]}, fixture.teams)
	fixture.refused(decision, [fixture.reason("outside_window", 0)])
}

test_within_the_window_it_is_open if {
	monday := json.patch(fixture.about([insert]), [{
		"op": "replace",
		"path": "/context/time_ns",
		"value": 1704628800000000000 + (((24 * 3600) * 1000) * 1000000),
	}])
	fixture.decide(monday, {"windows": [window]}, fixture.teams).allow == true
}

test_a_window_closes_its_kinds_and_databases_only if {
	fixture.decide(fixture.question, {"windows": [window]}, fixture.teams).allow == true
	other := object.union(window, {"databases": ["blue"]})
	fixture.decide(fixture.about([insert]), {"windows": [other]}, fixture.teams).allow == true
}

test_a_window_whose_hours_are_not_of_the_form_is_always_closed if {
	every hours in [{}, {"days": ["Sunday"], "from": "8:00", "to": "18:00", "timezone": "UTC"}] {
		broken := object.union(object.remove(window, ["hours"]), {"hours": hours})
		decision := fixture.decide(fixture.about([insert]), {"windows": [broken]}, fixture.teams)
		fixture.refused(decision, [fixture.reason("outside_window", 0)])
	}
}

test_breaking_the_glass_opens_the_window_until_then if {
	asked := fixture.about([insert])
	fixture.decide(asked, {"windows": [window], "break_glass": [glass]}, fixture.teams).allow == true
}

test_broken_glass_is_for_one_person_one_window_and_one_time if {
	every change in [
		{"until": "2024-01-07T12:00:00Z"},
		{"subject": "bob"},
		{"issuer": "https://other.example"},
		{"windows": ["other"]},
	] {
		data_of := {"windows": [window], "break_glass": [object.union(glass, change)]}
		decision := fixture.decide(fixture.about([insert]), data_of, fixture.teams)
		fixture.refused(decision, [fixture.reason("outside_window", 0)])
	}
}

test_broken_glass_opens_nothing_else if {
	authors := object.union(fixture.teams, {"red": {"grant": set()}})
	decision := fixture.decide(fixture.about([insert]), {"windows": [window], "break_glass": [glass]}, authors)
	fixture.refused(decision, [{"code": "not_granted", "source": "red", "access": 0}])
}

# Sunday, 2024-01-07, at this time in UTC.
at(text) := time.parse_rfc3339_ns(sprintf("2024-01-07T%sZ", [text]))

sunday(from, to, timezone) := {"days": ["Sunday"], "from": from, "to": to, "timezone": timezone}

test_hours_begin_within_and_end_without if {
	calendar.during(sunday("08:00", "18:00", "UTC"), at("08:00:00"))
	not calendar.during(sunday("08:00", "18:00", "UTC"), at("07:59:59"))
	calendar.during(sunday("08:00", "18:00", "UTC"), at("17:59:59"))
	not calendar.during(sunday("08:00", "18:00", "UTC"), at("18:00:00"))
	calendar.during(sunday("00:00", "24:00", "UTC"), at("23:59:59"))
}

test_hours_are_those_of_the_time_zone if {
	calendar.during(sunday("08:00", "09:00", "Europe/Berlin"), at("07:30:00"))
	not calendar.during(sunday("08:00", "09:00", "Europe/Berlin"), at("08:30:00"))
	not calendar.during(sunday("00:00", "24:00", "Europe/Berlin"), at("23:30:00"))
}

test_hours_of_another_day_or_form_contain_nothing if {
	every hours in [
		object.union(sunday("00:00", "24:00", "UTC"), {"days": ["sunday", "Monday"]}),
		object.union(sunday("00:00", "24:00", "UTC"), {"days": []}),
		sunday("24:00", "24:00", "UTC"),
		sunday("0:00", "24:00", "UTC"),
		sunday("00:00", "25:00", "UTC"),
		sunday("18:00", "08:00", "UTC"),
	] {
		not calendar.during(hours, at("12:00:00"))
	}
}
