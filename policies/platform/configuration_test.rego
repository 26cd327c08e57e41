# METADATA
# title: Tests of mcp.platform.configuration
package mcp.platform.configuration_test

import data.mcp.platform.configuration
import data.mcp.platform.fixture_test as fixture

test_each_table_must_be_there_and_of_its_type if {
	every table, _ in fixture.tables {
		decision := fixture.decide(fixture.question, {table: "x"}, fixture.teams)
		fixture.refused(decision, [fixture.reason("platform_data_invalid", null)])
	}
}

test_tables_that_refuse_must_say_what if {
	every change in [
		{"suspended": {"subjects": []}},
		{"suspended": {"agents": []}},
		{"suspended": {"subjects": [{"id": "ann"}], "agents": []}},
		{"suspended": {"subjects": [], "agents": [1]}},
		{"agents": {"default": fixture.tables.agents["default"]}},
		{"agents": {"registered": {}}},
		{"amplifiers": {"$topN.n": "10"}},
		{"refused_kinds": ["conect"]},
		{"windows": ["always"]},
		{"windows": [object.remove(window, ["hours"])]},
		{"windows": [object.union(window, {"kinds": []})]},
		{"windows": [object.union(window, {"kinds": ["inserts"]})]},
		{"windows": [object.union(window, {"databases": []})]},
		{"windows": [object.union(window, {"databases": [1]})]},
		{"windows": [object.union(window, {"note": "x"})]},
	] {
		decision := fixture.decide(fixture.question, change, fixture.teams)
		fixture.refused(decision, [fixture.reason("platform_data_invalid", null)])
	}
}

test_a_window_of_the_right_form_is_data if {
	fixture.decide(fixture.question, {"windows": [window]}, fixture.teams).allow == true
}

window := {"id": "w", "kinds": ["insert"], "databases": ["*"], "hours": {"days": [], "from": "00:00", "to": "24:00", "timezone": "UTC"}}

test_what_was_examined_before_is_not_examined_again if {
	configuration.sound with data.mcp.platform.servers as "x" with data.mcp.examined as true
}

test_nothing_else_says_that_the_data_was_examined if {
	every said in [false, null, "true", 1, {}, [true]] {
		not configuration.sound with data.mcp.platform.servers as "x" with data.mcp.examined as said
	}
	not configuration.sound with data.mcp.platform.servers as "x"
}

test_data_of_its_form_is_usable_whatever_was_said_of_it if {
	every said in [true, false, null] {
		decision := fixture.decide(fixture.question, {}, fixture.teams) with data.mcp.examined as said
		decision.allow == true
	}
	not configuration.in_form with data.mcp.platform.servers as "x" with data.mcp.examined as true
}
