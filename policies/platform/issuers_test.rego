# METADATA
# title: Tests of mcp.platform.issuers
package mcp.platform.issuers_test

import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.issuers

home := "https://idp.example"

other := "https://partner.example"

# METADATA
# title: The fixture's question by a caller of an issuer, where several are trusted
by(issuer, asked) := json.patch(asked, [
	{"op": "replace", "path": "/subject/issuer", "value": issuer},
	{"op": "add", "path": "/subject/several_issuers", "value": true},
])

# METADATA
# title: The fixture's tables, each entry for these issuers
said(listed) := {
	"routes": [object.union(route, {"issuers": listed}) | some route in fixture.tables.routes],
	"deployments": delegating(listed),
	"grants": [object.union(grant, {"issuers": listed}) | some grant in fixture.tables.grants],
	"agents": {
		"default": object.union(fixture.tables.agents["default"], {"issuers": listed}),
		"registered": {id: object.union(agent, {"issuers": listed}) | some id, agent in fixture.tables.agents.registered},
	},
	"traits": {trait: object.union(entry, {"issuers": listed}) | some trait, entry in fixture.tables.traits},
	"scope_issuers": {scope: listed | some scope, _ in fixture.tables.scopes},
}

# METADATA
# title: The fixture's deployments, what each holding delegates for these issuers
delegating(listed) := {deployment: object.union(object.filter(held, ["whole"]), {table: owners |
	some table in ["databases", "prefixes", "targets"]
	owners := {name: delegating_in(holding, listed) | some name, holding in held[table]}
}) |
	some deployment, fixture_held in fixture.tables.deployments
	held := object.union(fixture_held, {"whole": delegating_in(object.get(fixture_held, "whole", fixture.holding("platform", [""], [])), listed)})
}

# METADATA
# title: The holding, what it delegates for these issuers
delegating_in(holding, listed) := object.union(
	holding,
	{"delegated": [object.union(entry, {"issuers": listed}) | some entry in holding.delegated]},
)

# METADATA
# title: The fixture's tables, said for the home issuer, but for one that says nothing
silent(table) := object.union(object.remove(said([home]), [table]), {table: object.get(fixture.tables, table, {})})

listing_of_databases := fixture.about([{"kind": "metadata", "database": "", "collection": "", "via": "/name"}])

unbounded := json.patch(fixture.question, [{"op": "replace", "path": "/command/traits", "value": ["unbounded"]}])

codes(asked, changed) := fixture.codes(fixture.decide(asked, changed, fixture.teams))

test_with_one_issuer_nothing_has_to_be_said if {
	fixture.allowed(fixture.question)
	fixture.decide(fixture.question, said([home]), fixture.teams).allow == true
}

test_what_is_said_counts_also_with_one_issuer if {
	"no_route" in codes(fixture.question, said([other]))
	codes(fixture.question, {"scope_issuers": said([other]).scope_issuers}) == {"scope_missing"}
	codes(fixture.question, {"agents": said([other]).agents}) == {"agent_ceiling"}
}

test_with_several_issuers_what_says_nothing_counts_for_nobody if {
	every issuer in [home, other] {
		{"no_route", "agent_ceiling", "scope_missing"} - codes(by(issuer, fixture.question), {}) == set()
	}
}

test_an_entry_counts_for_the_issuer_that_it_lists_and_for_no_other if {
	fixture.decide(by(home, fixture.question), said([home]), fixture.teams).allow == true
	{"no_route", "agent_ceiling", "scope_missing"} - codes(by(other, fixture.question), said([home])) == set()
}

test_an_entry_can_count_for_all if {
	fixture.decide(by(home, fixture.question), said(["*"]), fixture.teams).allow == true
	fixture.decide(by(other, fixture.question), said(["*"]), fixture.teams).allow == true
}

test_an_issuer_is_compared_exactly if {
	near := ["https://idp.example/", "https://IDP.example", "https://*", "https://idp.exampl", "https://\u0456dp.example"]
	every listed in near {
		"no_route" in codes(by(home, fixture.question), said([listed]))
	}
}

test_an_empty_list_counts_for_nobody if {
	"no_route" in codes(by(home, fixture.question), said([]))
	"no_route" in codes(fixture.question, said([]))
}

test_each_silent_table_refuses_on_its_own if {
	"no_route" in codes(by(home, fixture.question), silent("routes"))
	codes(by(home, fixture.question), silent("agents")) == {"agent_ceiling"}
	codes(by(home, fixture.question), silent("scope_issuers")) == {"scope_missing"}
	codes(by(home, unbounded), silent("traits")) == {"trait_refused"}
	codes(by(home, listing_of_databases), silent("grants")) == {"not_granted"}
	codes(by(home, fixture.question), silent("deployments")) == {"not_delegated"}
	codes(by(home, listing_of_databases), silent("deployments")) == {"not_delegated"}
}

test_their_near_misses_are_allowed if {
	fixture.decide(by(home, unbounded), said([home]), fixture.teams).allow == true
	fixture.decide(by(home, listing_of_databases), said([home]), fixture.teams).allow == true
}

test_an_agent_of_another_issuer_has_the_default_ceiling if {
	insert := fixture.about([{"kind": "insert", "database": "shop", "collection": "orders", "via": ""}])
	tables := object.union(said(["*"]), {"agents": {
		"default": object.union(fixture.tables.agents["default"], {"issuers": ["*"]}),
		"registered": {"desk": object.union(fixture.tables.agents.registered.desk, {"issuers": [home]})},
	}})
	fixture.decide(by(home, insert), tables, fixture.teams).allow == true
	codes(by(other, insert), tables) == {"agent_ceiling"}
	fixture.decide(by(other, fixture.question), tables, fixture.teams).allow == true
}

test_a_team_is_reached_only_where_the_platform_says_so_for_the_issuer if {
	open := said(["*"])
	half := object.union(object.remove(open, ["deployments"]), {"deployments": delegating([home])})
	fixture.decide(by(home, fixture.question), half, fixture.teams).allow == true
	codes(by(other, fixture.question), half) == {"not_delegated"}
	fixture.decide(by(other, fixture.question), open, fixture.teams).allow == true
	fixture.list(by(home, fixture.listing), half).tools != []
	fixture.list(by(other, fixture.listing), half).tools == []
}

test_what_is_delegated_by_pattern_is_too if {
	asked := fixture.about([fixture.read("blue", "orders_2024")])
	half := object.union(object.remove(said(["*"]), ["deployments"]), {"deployments": delegating([home])})
	fixture.decide(by(home, asked), half, fixture.teams).allow == true
	codes(by(other, asked), half) == {"not_delegated"}
}

test_a_service_speaks_for_itself_only_where_its_agent_is_registered if {
	service := json.patch(fixture.question, [{"op": "replace", "path": "/subject/type", "value": "service"}])
	stranger := json.patch(service, [{"op": "replace", "path": "/actor/id", "value": "desktop"}])
	fixture.allowed(service)
	codes(stranger, {}) == {"agent_ceiling"}
	codes(by(other, service), object.union(said(["*"]), {"agents": said([home]).agents})) == {"agent_ceiling"}
}

test_the_list_of_tools_is_of_what_counts if {
	fixture.list(by(home, fixture.listing), said([home])).tools == fixture.list(fixture.listing, {}).tools
	fixture.list(by(other, fixture.listing), said([home])).tools == []
	fixture.list(by(home, fixture.listing), {}).tools == []
}

test_a_caller_says_that_there_are_several_or_says_nothing if {
	every bad in [false, null, "true", 1, {}] {
		asked := json.patch(fixture.question, [{"op": "add", "path": "/subject/several_issuers", "value": bad}])
		codes(asked, {}) == {"invalid_input"}
	}
}

test_covered if {
	issuers.covered([home]) with input as fixture.question
	not issuers.covered([other]) with input as fixture.question
	issuers.covered(null) with input as fixture.question
	not issuers.covered(null) with input as by(home, fixture.question)
	not issuers.counts({"issuers": home}) with input as fixture.question
}
