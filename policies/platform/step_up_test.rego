# METADATA
# title: Tests of mcp.platform.step_up
# description: >-
#   The same search, written in Python and without a limit, is compared with it in tests/policy/test_step_up.py.
package mcp.platform.step_up_test

import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.step_up

insert := {"kind": "insert", "database": "shop", "collection": "orders", "via": ""}

# METADATA
# title: The fixture's question with these scopes and accesses
holding(scopes, accesses) := json.patch(fixture.about(accesses), [{"op": "replace", "path": "/subject/scopes", "value": scopes}])

# METADATA
# title: What is offered; null where nothing is
offered(asked, changed, authors) := object.get(fixture.decide(asked, changed, authors), "step_up", null)

# METADATA
# title: The fixture's routes, for any scope
open_routes := [object.union(route, {"scopes": ["*"]}) | some route in fixture.tables.routes]

# METADATA
# title: What is offered for reading and inserting to a token without a scope, with a table of scopes
chosen(scopes) := offered(
	holding([], [fixture.read("shop", "orders"), insert]),
	{"scopes": scopes, "routes": open_routes},
	fixture.teams,
)

test_the_scope_that_is_missing_is_named if {
	offered(holding(["read"], [insert]), {}, fixture.teams) == {"missing": ["write"], "held": ["read"]}
	offered(holding([], [fixture.read("shop", "orders")]), {}, fixture.teams) == {"missing": ["read"], "held": []}
}

test_an_allowed_call_is_offered_nothing if {
	decision := fixture.decide(fixture.question, {}, fixture.teams)
	decision.allow == true
	not decision.step_up
}

test_a_token_with_what_is_offered_is_allowed if {
	asked := holding([], [fixture.read("shop", "orders"), insert])
	offer := offered(asked, {}, fixture.teams)
	offer == {"missing": ["read", "write"], "held": []}
	fixture.allowed(holding(offer.missing, asked.accesses))
	every left in offer.missing {
		not fixture.allowed(holding([left], asked.accesses))
	}
}

# Each refusal has a reason that no scope lifts; beside it stands the same call without that reason.
test_nothing_is_offered_where_something_else_refuses if {
	asked := holding(["read"], [insert])
	offered(asked, {}, fixture.teams).missing == ["write"]
	every changed in [
		{"suspended": {"subjects": [], "agents": ["desk"]}},
		{"suspended": {"subjects": [{"issuer": "https://idp.example", "id": "ann"}], "agents": []}},
		{"refused_kinds": ["insert"]},
		{"agents": {"default": fixture.tables.agents["default"], "registered": {}}},
		{"windows": [{"id": "w", "kinds": ["insert"], "databases": ["*"], "hours": closed_hours}]},
		{"deployments": {"east": {"databases": {}, "prefixes": {}, "targets": {}}}},
		{"servers": {}},
		{"routes": [fixture.tables.routes[0]]},
	] {
		decision := fixture.decide(asked, changed, fixture.teams)
		decision.allow == false
		not decision.step_up
	}
	every authors in [
		{"red": {"grant": set(), "deny": set()}},
		{"red": {"grant": {{"id": "all"}}, "deny": {"no"}}},
		{"red": {"grant": {{"id": "platform.x"}}, "deny": set()}},
		{"red": {"grant": {"all"}, "deny": set()}},
		{},
	] {
		offered(asked, {}, authors) == null
	}
	trait := json.patch(asked, [{"op": "replace", "path": "/command/traits", "value": ["upsert"]}])
	offered(trait, {}, fixture.teams) == null
	system := holding(["read"], [object.union(insert, {"collection": "system.users"})])
	offered(system, {}, fixture.teams) == null
	stranger := json.patch(asked, [{"op": "replace", "path": "/subject/groups", "value": []}])
	offered(stranger, {}, fixture.teams) == null
}

# METADATA
# title: A route for inserts to a server, for one of these scopes
route_to(server, scopes) := object.union(fixture.tables.routes[1], {"id": concat("", scopes), "server": server, "scopes": scopes})

test_routes_that_lead_nowhere_do_not_use_up_the_tries if {
	nowhere := [route_to(server, [name]) |
		some [name, server] in [["a1", "west"], ["a2", "west"], ["a3", "west"], ["a4", "none"], ["a5", "west"]]
	]
	scopes := {"read": ["read"], "write": ["insert"], "x": []}
	asked := holding(["read", "write"], [insert])
	offered(asked, {"routes": array.concat(nowhere, [route_to("rw", ["x"])]), "scopes": scopes}, fixture.teams).missing == ["x"]
	offered(asked, {"routes": nowhere, "scopes": scopes}, fixture.teams) == null
}

test_a_scope_that_an_earlier_route_takes_is_not_asked_for_a_later_one if {
	scopes := {"read": ["read"], "write": ["insert"]}
	asked := holding(["read", "write"], [insert])
	ordered := [route_to("west", ["a"]), route_to("rw", ["a", "b"])]
	offered(asked, {"routes": ordered, "scopes": scopes}, fixture.teams).missing == ["b"]
	offered(asked, {"routes": array.reverse(ordered), "scopes": scopes}, fixture.teams).missing == ["a"]
	offered(asked, {"routes": [ordered[0], route_to("rw", ["a"])], "scopes": scopes}, fixture.teams) == null
}

# METADATA
# title: What of scopes these routes demand for an insert
demanded_by(routes, scopes) := found if {
	found := step_up.demands with input as holding(scopes, [insert])
		with data.mcp.platform.routes as routes
		with data.mcp.platform.servers as fixture.tables.servers
		with data.mcp.platform.agents as fixture.tables.agents
		with data.mcp.platform.scopes as fixture.tables.scopes
}

test_a_route_that_does_not_take_the_call_is_none_that_fits if {
	fits := route_to("rw", ["read"])
	asked := holding(["read", "write"], [insert])
	every other in [
		object.union(fits, {"kinds": ["read", "metadata"]}),
		object.union(fits, {"groups": ["others"]}),
		object.union(fits, {"agents": ["other"]}),
	] {
		routes := [other, route_to("rw", ["x"])]
		offered(asked, {"routes": routes}, fixture.teams).missing == ["x"]
	}
	fixture.decide(asked, {"routes": [fits, route_to("rw", ["x"])]}, fixture.teams).allow
}

test_one_of_two_kinds_is_not_enough_of_a_route if {
	routes := [object.union(route_to("rw", ["read"]), {"kinds": ["read"]}), route_to("rw", ["x"])]
	asked := holding(["read", "write"], [fixture.read("shop", "orders"), insert])
	offered(asked, {"routes": routes}, fixture.teams).missing == ["x"]
}

test_a_route_that_fits_demands_nothing_and_those_behind_it_are_not_asked if {
	demanded_by([route_to("rw", ["write", "x"]), route_to("rw", ["y"])], ["write"]) == {set()}
	demanded_by([route_to("rw", ["y"]), route_to("rw", ["write", "x"])], ["write"]) == {{"y"}, set()}
	demanded_by([route_to("rw", ["y"]), route_to("ro", ["x"])], ["write"]) == {{"x"}, {"y"}}
}

test_a_route_that_demands_nothing_of_its_own_is_not_asked if {
	demanded_by([route_to("west", ["a"]), route_to("rw", ["a"])], ["write"]) == set()
	demanded_by([route_to("west", ["a"]), route_to("rw", ["a", "b"])], ["write"]) == {{"b"}}
}

test_a_token_that_lacks_nothing_leaves_nothing_to_look_for if {
	routes := [route_to("rw", ["write"])]
	found := step_up.best with input as holding(["write"], [insert])
		with data.mcp.platform.routes as routes
		with data.mcp.platform.servers as fixture.tables.servers
		with data.mcp.platform.agents as fixture.tables.agents
		with data.mcp.platform.scopes as fixture.tables.scopes
	found == set()
	lacking := step_up.best with input as holding([], [insert])
		with data.mcp.platform.routes as routes
		with data.mcp.platform.servers as fixture.tables.servers
		with data.mcp.platform.agents as fixture.tables.agents
		with data.mcp.platform.scopes as fixture.tables.scopes
	lacking == {[2, 1, ["write"]]}
}

closed_hours := {"days": ["Monday"], "from": "00:00", "to": "24:00", "timezone": "UTC"}

test_the_other_access_of_the_call_counts_too if {
	elsewhere := object.union(insert, {"database": "blue", "collection": "orders_new"})
	asked := holding(["read"], [insert, elsewhere])
	offered(asked, {}, fixture.teams).missing == ["write"]
	offered(asked, {}, {"red": {"grant": {{"id": "all"}}, "deny": set()}}) == null
}

test_a_question_that_is_not_answered_is_offered_nothing if {
	not fixture.decide({}, {}, fixture.teams).step_up
	not fixture.decide(json.remove(holding(["read"], [insert]), ["/command"]), {}, fixture.teams).step_up
	not fixture.decide(holding(["read"], [insert]), {"scopes": null}, fixture.teams).step_up
	not fixture.decide(holding(["read"], []), {}, fixture.teams).step_up
}

test_names_are_compared_exactly if {
	every held in ["WRITE", "Write", "writ", "write ", "write2", "*"] {
		offered(holding(["read", held], [insert]), {}, fixture.teams) == {"missing": ["write"], "held": ["read"]}
	}
}

test_a_scope_that_opens_other_kinds_is_not_offered if {
	scopes := {"read": ["read", "metadata"], "write": ["update"]}
	offered(holding(["read"], [insert]), {"scopes": scopes}, fixture.teams) == null
	offered(holding(["read"], [insert]), {"scopes": object.union(scopes, {"write": ["insert"]})}, fixture.teams) != null
}

test_a_scope_that_cannot_be_asked_for_is_not_offered if {
	every name in ["", "a b", "a\"b", "a\\b", "a\nb", "ü", sprintf("%0129d", [1])] {
		scopes := {"read": ["read"], name: ["insert"]}
		offered(holding(["read"], [insert]), {"scopes": scopes, "routes": open_routes}, fixture.teams) == null
	}
	every name in ["!", "~", "a#b", "[a]", "https://a/b.c?d=e&f", sprintf("%0128d", [1])] {
		scopes := {"read": ["read"], name: ["insert"]}
		offered(holding(["read"], [insert]), {"scopes": scopes, "routes": open_routes}, fixture.teams).missing == [name]
	}
}

test_a_scope_counts_for_the_issuers_that_it_is_listed_for if {
	asked := json.patch(holding(["read"], [insert]), [{"op": "add", "path": "/subject/several_issuers", "value": true}])
	here := ["https://idp.example"]
	changed := {
		"routes": [object.union(route, {"issuers": here}) | some route in open_routes],
		"agents": {
			"default": object.union(fixture.tables.agents["default"], {"issuers": here}),
			"registered": {"desk": object.union(fixture.tables.agents.registered.desk, {"issuers": here})},
		},
		"deployments": {"east": {
			"databases": {"shop": {
				"owner": "red",
				"delegated": [{"kinds": ["insert"], "collections": ["*"], "issuers": here}],
				"obligations": [],
			}},
			"prefixes": {},
			"targets": {},
		}},
	}
	offered(asked, object.union(changed, {"scope_issuers": {"write": here}}), fixture.teams) == {"missing": ["write"], "held": []}
	offered(asked, object.union(changed, {"scope_issuers": {"write": ["*"], "read": here}}), fixture.teams) == {
		"missing": ["write"],
		"held": ["read"],
	}
	offered(asked, object.union(changed, {"scope_issuers": {"write": ["https://other.example"]}}), fixture.teams) == null
	offered(asked, changed, fixture.teams) == null
}

test_the_fewest_kinds_are_opened if {
	all := ["read", "metadata", "insert", "update", "delete"]
	chosen({"all": all, "i": ["insert"], "r": ["read"]}).missing == ["i", "r"]
	chosen({"all": all, "i": ["insert"]}).missing == ["all"]
	chosen({"all": all, "i": ["insert"], "r": ["read", "export"]}).missing == ["i", "r"]
}

test_of_as_few_kinds_the_fewest_scopes_are_asked_for if {
	chosen({"a": ["insert"], "b": ["read"], "c": ["read", "insert"]}).missing == ["c"]
	chosen({"a": ["insert"], "b": ["read"], "c": ["read", "insert", "drop"]}).missing == ["a", "b"]
}

test_of_as_few_scopes_the_first_by_name_are_asked_for if {
	chosen({"z": ["insert"], "y": ["insert"], "b": ["read"], "c": ["read"]}).missing == ["b", "y"]
	chosen({"d": ["insert", "drop"], "c": ["read"], "e": ["read", "drop"], "f": ["insert"]}).missing == ["c", "f"]
}

test_kinds_that_are_open_already_do_not_count if {
	asked := holding(["r"], [fixture.read("shop", "orders"), insert])
	scopes := {"r": ["read", "metadata"], "wide": ["insert", "read", "metadata"], "narrow": ["insert", "drop"]}
	offered(asked, {"scopes": scopes, "routes": open_routes}, fixture.teams) == {"missing": ["wide"], "held": ["r"]}
}

test_a_scope_that_only_a_route_demands_is_asked_for_too if {
	routes := [
		object.union(fixture.tables.routes[1], {"scopes": ["west", "east"], "kinds": ["insert"]}),
		fixture.tables.routes[0],
	]
	asked := holding(["read"], [insert])
	offered(asked, {"routes": routes}, fixture.teams) == {"missing": ["east", "write"], "held": ["read"]}
	offered(holding(["write"], [insert]), {"routes": routes}, fixture.teams) == {"missing": ["east"], "held": ["write"]}
	offered(holding(["west"], [insert]), {"routes": routes}, fixture.teams) == {"missing": ["write"], "held": ["west"]}
}

test_one_scope_for_the_route_and_the_kind_is_better_than_two if {
	offered(holding([], [insert]), {}, fixture.teams) == {"missing": ["write"], "held": []}
	routes := [object.union(fixture.tables.routes[1], {"scopes": ["a", "write"]})]
	offered(holding([], [insert]), {"routes": routes}, fixture.teams).missing == ["write"]
}

test_a_route_before_the_one_that_fits_is_tried if {
	# The first route is of another deployment, where the team owns the database; the second fits as it is and leads nowhere.
	routes := [
		object.union(fixture.tables.routes[0], {"scopes": ["east"], "server": "ro"}),
		object.union(fixture.tables.routes[0], {"server": "west"}),
	]
	agents := {"default": {"kinds": ["read"], "servers": ["*"], "deployments": ["*"]}, "registered": {}}
	asked := holding(["read"], [fixture.read("shop", "orders")])
	offered(asked, {"routes": routes, "agents": agents}, fixture.teams) == {"missing": ["east"], "held": ["read"]}
	turned := array.reverse(routes)
	offered(asked, {"routes": turned, "agents": agents}, fixture.teams) == null
}

test_a_set_that_sends_the_call_elsewhere_is_passed_over if {
	# Both routes could take it. The first one's scope opens less, but leads to a deployment where nobody owns the database.
	routes := [
		object.union(fixture.tables.routes[0], {"scopes": ["a"], "server": "west"}),
		object.union(fixture.tables.routes[0], {"scopes": ["b"], "server": "ro"}),
	]
	agents := {"default": {"kinds": ["read"], "servers": ["*"], "deployments": ["*"]}, "registered": {}}
	asked := holding(["read"], [fixture.read("shop", "orders")])
	offered(asked, {"routes": routes, "agents": agents}, fixture.teams) == {"missing": ["b"], "held": ["read"]}
}

test_thirteen_kinds_and_a_route_can_be_missing if {
	every_kind := [
		"read", "metadata", "insert", "update", "delete", "create", "drop",
		"index", "admin", "connect", "export", "external", "execute",
	]
	accesses := [{"kind": kind, "database": "shop", "collection": "orders", "via": ""} | some kind in every_kind]
	changed := {
		"routes": [{
			"id": "r",
			"groups": ["*"],
			"agents": ["*"],
			"scopes": ["way"],
			"kinds": every_kind,
			"server": "ro",
		}],
		"scopes": {sprintf("s-%s", [kind]): [kind] | some kind in every_kind},
		"agents": {"default": {"kinds": every_kind, "servers": ["*"], "deployments": ["*"]}, "registered": {}},
		"refused_kinds": [],
		"deployments": {"east": {
			"databases": {"shop": {
				"owner": "red",
				"delegated": [{"kinds": every_kind, "collections": ["*"]}],
				"obligations": [],
			}},
			"prefixes": {},
			"targets": {},
		}},
	}
	offer := offered(holding([], accesses), changed, fixture.teams)
	offer.missing == sort({sprintf("s-%s", [kind]) | some kind in every_kind} | {"way"})
}

test_what_a_view_reads_counts if {
	viewed := {"sources": [{"database": "blue", "collection": "orders_eu"}], "alone": false}
	east := object.union(fixture.tables.deployments.east, {"views": {"shop": {"v": viewed}}})
	changed := {"deployments": {"east": east}}
	asked := holding([], [fixture.read("shop", "v")])
	offered(asked, changed, fixture.teams).missing == ["read"]
	offered(asked, changed, {"red": fixture.teams.red, "blue": {"grant": set(), "deny": set()}}) == null
}
