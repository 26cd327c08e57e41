# METADATA
# title: Tests of mcp.platform.delegation
package mcp.platform.delegation_test

import data.mcp.platform.fixture_test as fixture

# METADATA
# title: The owner of the one access that is asked about
owner(access) := fixture.decide(fixture.about([access]), {}, fixture.teams).accesses[0].owner

# METADATA
# title: The decision where the holding of "shop" is another
with_shop(asked, holding) := fixture.decide(asked, {"deployments": changed}, fixture.teams) if {
	changed := json.patch(fixture.tables.deployments, [{"op": "replace", "path": "/east/databases/shop", "value": holding}])
}

test_exact_names_come_first if {
	owner(fixture.read("tmp_own", "x")) == "blue"
}

test_then_the_longest_prefix if {
	owner(fixture.read("tmp_x", "x")) == "red"
	owner(fixture.read("tmp_blue_x", "x")) == "blue"
	owner(fixture.read("tmp_", "x")) == "red"
}

test_the_empty_prefix_owns_nothing if {
	owner(fixture.read("other", "x")) == ""
}

test_names_are_compared_exactly if {
	owner(fixture.read("shop", "orders")) == "red"
	every database in ["Shop", "shop ", "shopp", "ѕhop", "sho"] {
		decision := fixture.decide(fixture.about([fixture.read(database, "orders")]), {}, fixture.teams)
		fixture.refused(decision, [fixture.reason("no_owner", 0)])
	}
}

test_the_whole_deployment_is_the_platforms if {
	access := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	decision := fixture.decide(fixture.about([access]), {}, fixture.teams)
	decision.allow == true
	decision.accesses[0].owner == "platform"
	decision.accesses[0].grants == ["list"]
}

test_the_platform_grants_to_its_groups_only if {
	access := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	grant := object.union(fixture.tables.grants[0], {"groups": ["others"]})
	decision := fixture.decide(fixture.about([access]), {"grants": [grant]}, fixture.teams)
	fixture.refused(decision, [{"code": "not_granted", "source": "platform", "access": 0}])
}

test_the_platforms_grant_is_for_its_kinds_and_places_only if {
	access := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	every change in [{"kinds": ["read"]}, {"deployments": ["west"]}, {"databases": ["*"]}, {"collections": ["*"]}] {
		grant := object.union(fixture.tables.grants[0], change)
		decision := fixture.decide(fixture.about([access]), {"grants": [grant]}, fixture.teams)
		fixture.refused(decision, [{"code": "not_granted", "source": "platform", "access": 0}])
	}
}

test_what_the_platform_owns_no_team_grants if {
	authors := object.union(fixture.teams, {"platform": {"grant": {{"id": "mine"}}, "deny": set()}})
	decision := fixture.decide(fixture.about([fixture.read("common", "x")]), {}, authors)
	fixture.refused(decision, [{"code": "not_granted", "source": "platform", "access": 0}])
}

test_the_platform_lets_a_caller_list_the_names_within_reach_only if {
	whole := fixture.about([{"kind": "metadata", "database": "", "collection": "", "via": ""}])
	within := listing_grants("reachable")
	decision := fixture.decide(whole, {"grants": within}, fixture.teams)
	decision.allow == true
	decision.accesses[0].names == "reachable"
	both := fixture.decide(whole, {"grants": array.concat(within, fixture.tables.grants)}, fixture.teams)
	both.allow == true
	not both.accesses[0].names
	fixture.refused(fixture.decide(whole, {"grants": listing_grants("all")}, fixture.teams), [{
		"code": "team_policy_error", "source": "platform", "access": 0,
	}])
}

# METADATA
# title: The platform's grants of the tests, with this choice of names
listing_grants(choice) := [object.union(grant, {"id": "within", "names": choice}) | some grant in fixture.tables.grants]

test_a_deployment_without_a_whole_has_no_owner_of_it if {
	access := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	changed := json.patch(fixture.tables.deployments, [{"op": "remove", "path": "/east/whole"}])
	decision := fixture.decide(fixture.about([access]), {"deployments": changed}, fixture.teams)
	fixture.refused(decision, [fixture.reason("no_owner", 0)])
}

test_a_target_is_owned_by_its_kind if {
	access := {"kind": "metadata", "database": "", "collection": "", "via": "", "target": {"kind": "cluster", "id": "c"}}
	owner(access) == "red"
	fixture.allowed(fixture.about([access]))
	other := json.patch(access, [{"op": "replace", "path": "/target/kind", "value": "project"}])
	decision := fixture.decide(fixture.about([other]), {}, fixture.teams)
	fixture.refused(decision, [fixture.reason("no_owner", 0)])
}

test_a_kind_that_was_not_delegated_is_refused if {
	holding := object.union(fixture.holding("red", ["*"], []), {"delegated": [{"kinds": ["metadata"], "collections": ["*"]}]})
	fixture.refused(with_shop(fixture.question, holding), [fixture.reason("not_delegated", 0)])
}

test_a_collection_that_was_not_delegated_is_refused if {
	fixture.allowed(fixture.about([fixture.read("blue", "orders.archive")]))
	decision := fixture.decide(fixture.about([fixture.read("blue", "customers")]), {}, fixture.teams)
	fixture.refused(decision, [fixture.reason("not_delegated", 0)])
	decision.accesses[0].owner == "blue"
}

test_every_collection_is_not_the_whole_database if {
	whole := fixture.read("shop", "")
	fixture.allowed(fixture.about([whole]))
	decision := with_shop(fixture.about([whole]), fixture.holding("red", ["*"], []))
	fixture.refused(decision, [fixture.reason("not_delegated", 0)])
}

test_a_team_is_not_asked_about_what_was_not_delegated if {
	authors := object.union(fixture.teams, {"blue": {"grant": "broken"}})
	decision := fixture.decide(fixture.about([fixture.read("blue", "customers")]), {}, authors)
	fixture.refused(decision, [fixture.reason("not_delegated", 0)])
}

test_a_holding_must_be_sound if {
	good := fixture.holding("red", ["*"], [])
	every holding in [
		[],
		{"owner": "red"},
		object.union(good, {"note": "x"}),
		object.union(good, {"owner": ""}),
		object.union(good, {"owner": 7}),
		object.union(good, {"delegated": {}}),
		object.union(good, {"obligations": {}}),
		fixture.holding("red", ["*"], [{"id": "o", "kinds": ["read"], "collections": ["*"], "masks": ["a"]}]),
		fixture.holding("red", ["*"], [{"id": "o", "kinds": ["reed"], "collections": ["*"], "mask": ["a"]}]),
		fixture.holding("red", ["*"], [{"id": "o", "kinds": [], "collections": ["*"], "mask": ["a"]}]),
		fixture.holding("red", ["*"], [{"id": "o", "kinds": ["read"], "collections": [], "mask": ["a"]}]),
		fixture.holding("red", ["*"], [{"id": "o", "kinds": ["read"], "collections": [1], "mask": ["a"]}]),
		fixture.holding("red", ["*"], [{"id": "o", "kinds": ["read"], "mask": ["a"]}]),
		fixture.holding("red", ["*"], [{"id": "o", "kinds": ["read"], "collections": ["*"], "mask": []}]),
		fixture.holding("red", ["*"], [{"kinds": ["read"], "collections": ["*"], "mask": ["a"]}]),
	] {
		fixture.refused(with_shop(fixture.question, holding), [fixture.reason("platform_data_invalid", 0)])
	}
}

test_the_platforms_obligations_are_on_every_allow if {
	obligation := {
		"id": "o", "kinds": ["read"], "collections": ["orders"], "filter": {"live": true}, "mask": ["ssn"],
		"max_documents": 10, "max_time_ms": 1000, "approval": "confirm",
	}
	decision := with_shop(fixture.question, fixture.holding("red", ["*"], [obligation]))
	decision.allow == true
	decision.accesses == [{
		"owner": "red", "grants": ["all"], "filter": {"live": true}, "mask": ["ssn"],
		"max_documents": 10, "max_time_ms": 1000,
	}]
	decision.approval == {"accesses": [{"access": 0, "codes": ["confirm"]}]}
}

test_and_on_no_other_kind_or_collection if {
	every change in [{"kinds": ["insert"]}, {"collections": ["customers"]}] {
		obligation := object.union({"id": "o", "kinds": ["read"], "collections": ["*"], "max_documents": 1}, change)
		decision := with_shop(fixture.question, fixture.holding("red", ["*"], [obligation]))
		decision.accesses[0].max_documents == null
	}
}

test_a_database_without_a_name_is_not_in_the_table_of_databases if {
	access := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	changed := json.patch(fixture.tables.deployments, [
		{"op": "remove", "path": "/east/whole"},
		{"op": "add", "path": "/east/databases/", "value": fixture.holding("red", [""], [])},
	])
	decision := fixture.decide(fixture.about([access]), {"deployments": changed}, fixture.teams)
	fixture.refused(decision, [fixture.reason("no_owner", 0)])
}

test_who_owns_the_whole_deployment_owns_no_database_by_it if {
	whole := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	accesses := [whole, {"kind": "metadata", "database": "nobodys", "collection": "", "via": ""}]
	decision := fixture.decide(fixture.about(accesses), {}, fixture.teams)
	fixture.refused(decision, [fixture.reason("no_owner", 1)])
	decision.accesses[1].owner == ""
}

test_so_must_the_holding_of_what_is_no_database if {
	whole := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	cluster := object.union(whole, {"target": {"kind": "cluster", "id": "c"}})
	unsound := object.union(fixture.holding("platform", [""], []), {"note": "x"})
	every change in [[whole, "/east/whole"], [cluster, "/east/targets/cluster"]] {
		changed := json.patch(fixture.tables.deployments, [{"op": "replace", "path": change[1], "value": unsound}])
		decision := fixture.decide(fixture.about([change[0]]), {"deployments": changed}, fixture.teams)
		fixture.refused(decision, [fixture.reason("platform_data_invalid", 0)])
	}
}

test_a_team_of_the_platforms_name_is_not_asked if {
	access := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	says := object.union(fixture.teams, {"platform": {"grant": "broken", "deny": {"no"}}})
	decision := fixture.decide(fixture.about([access]), {}, says)
	decision.allow == true
	decision.accesses[0].grants == ["list"]
}
