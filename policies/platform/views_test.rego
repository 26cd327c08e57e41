# METADATA
# title: Tests of mcp.platform.views
package mcp.platform.views_test

import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.views

# METADATA
# title: A place in the form of the platform's data
at(database, collection) := {"database": database, "collection": collection}

# METADATA
# title: An access to a source that the sidecar found behind shop.summary
behind(kind, database, collection) := {
	"kind": kind, "database": database, "collection": collection, "via": "/arguments/collection",
	"via_view": at("shop", "summary"),
}

# METADATA
# title: The view itself; team red owns the database
summary := fixture.read("shop", "summary")

# METADATA
# title: The decision where these views are declared; red grants the view and nothing else, blue everything it has
with_views(accesses, declared) := with_views_and_authors(accesses, declared, authors)

with_views_and_authors(accesses, declared, says) := fixture.decide(fixture.about(accesses), {"deployments": changed}, says) if {
	changed := json.patch(fixture.tables.deployments, [{"op": "add", "path": "/east/views", "value": declared}])
}

# METADATA
# title: Owners of which the first grants all and the second nothing
authors := {"red": {"grant": {{"id": "all"}}, "deny": set()}, "blue": {"grant": set(), "deny": set()}}

# METADATA
# title: A reason of team blue's
blue(code, access) := {"code": code, "source": "blue", "access": access}

# METADATA
# title: shop.summary is on blue's orders
declared(alone) := {"shop": {"summary": {"sources": [at("blue", "orders")], "alone": alone}}}

# --- what the sidecar found

test_a_source_behind_a_view_needs_a_grant_of_its_own if {
	accesses := [summary, behind("read", "blue", "orders")]
	fixture.allowed(fixture.about(accesses))
	decision := with_views(accesses, {})
	fixture.refused(decision, [blue("not_granted", 1)])
	decision.accesses[1].owner == "blue"
}

test_the_platform_can_say_that_the_view_alone_is_enough if {
	decision := with_views([summary, behind("read", "blue", "orders")], declared(true))
	decision.allow == true
	decision.accesses[1].owner == "blue"
	decision.accesses[1].grants == ["platform.view-alone"]
}

test_nor_does_the_platform_ask_its_own_grants_where_it_says_so if {
	sources := {"shop": {"summary": {"sources": [at("common", "orders")], "alone": true}}}
	accesses := [summary, behind("read", "common", "orders")]
	impostor := object.union(authors, {"platform": {"grant": set(), "deny": {"no"}}})
	decision := with_views_and_authors(accesses, sources, impostor)
	decision.allow == true
	decision.accesses[1] == object.union(decision.accesses[1], {"owner": "platform", "grants": ["platform.view-alone"]})
	needed := json.patch(sources, [{"op": "replace", "path": "/shop/summary/alone", "value": false}])
	fixture.refused(with_views(accesses, needed), [{"code": "not_granted", "source": "platform", "access": 1}])
}

test_a_view_that_is_declared_without_being_enough_is_not if {
	fixture.refused(with_views([summary, behind("read", "blue", "orders")], declared(false)), [blue("not_granted", 1)])
}

test_enough_is_said_of_one_view_in_one_deployment if {
	accesses := [summary, behind("read", "blue", "orders")]
	every other in [{"shop": {"summaries": declared(true).shop.summary}}, {"blue": {"summary": declared(true).shop.summary}}] {
		fixture.refused(with_views(accesses, other), [blue("not_granted", 1)])
	}
	elsewhere := json.patch(fixture.tables.deployments, [{"op": "add", "path": "/west/views", "value": declared(true)}])
	decision := fixture.decide(fixture.about(accesses), {"deployments": elsewhere}, authors)
	fixture.refused(decision, [blue("not_granted", 1)])
}

test_a_view_that_is_enough_does_not_grant_the_source_by_its_own_name if {
	direct := fixture.read("blue", "orders")
	decision := with_views([summary, behind("read", "blue", "orders"), direct], declared(true))
	fixture.refused(decision, [blue("not_granted", 2)])
}

test_nor_the_view_itself if {
	says := object.union(authors, {"red": {"grant": set(), "deny": set()}})
	decision := with_views_and_authors([summary, behind("read", "blue", "orders")], declared(true), says)
	fixture.refused(decision, [{"code": "not_granted", "source": "red", "access": 0}])
}

test_it_is_enough_to_export_what_the_view_shows if {
	every kind in ["read", "export"] {
		views.alone == {0} with input.accesses as [behind(kind, "blue", "orders")]
			with data.mcp.platform.deployments as {"east": {"views": declared(true)}}
			with data.mcp.platform.routing.deployment as "east"
	}
}

test_nor_is_it_enough_for_facts_about_the_source_or_a_write_to_it if {
	every kind in ["metadata", "insert"] {
		access := object.union(summary, {"kind": kind})
		decision := with_views([access, behind(kind, "blue", "orders")], declared(true))
		fixture.refused(decision, [blue("not_granted", 1)])
	}
}

test_nor_against_the_owners_deny_or_the_platforms_limits if {
	accesses := [summary, behind("read", "blue", "orders")]
	says := object.union(authors, {"blue": {"grant": set(), "deny": {"no"}}})
	fixture.refused(with_views_and_authors(accesses, declared(true), says), [blue("team_denied", 1)])
	beyond := with_views([summary, behind("read", "blue", "customers")], declared(true))
	fixture.refused(beyond, [fixture.reason("not_delegated", 1)])
	beyond.accesses[1].grants == []
	nobody := with_views([summary, behind("read", "gone", "orders")], declared(true))
	fixture.refused(nobody, [fixture.reason("no_owner", 1)])
	system := with_views([summary, behind("read", "shop", "system.profile")], declared(true))
	fixture.refused(system, [fixture.reason("system_namespace", 1)])
}

test_the_platforms_obligations_on_a_source_hold_where_the_view_is_enough if {
	obligation := {"id": "o", "kinds": ["read"], "collections": ["*"], "mask": ["ssn"]}
	changed := json.patch(fixture.tables.deployments, [
		{"op": "add", "path": "/east/views", "value": declared(true)},
		{"op": "replace", "path": "/east/databases/blue/obligations", "value": [obligation]},
	])
	asked := fixture.about([summary, behind("read", "blue", "orders")])
	decision := fixture.decide(asked, {"deployments": changed}, authors)
	decision.allow == true
	decision.accesses[1].mask == ["ssn"]
}

test_a_team_cannot_declare_its_own_views if {
	says := object.union(authors, {"red": {"grant": {{"id": "all"}}, "deny": set(), "views": declared(true)}})
	decision := with_views_and_authors([summary, behind("read", "blue", "orders")], {}, says)
	fixture.refused(decision, [blue("not_granted", 1)])
}

# --- what only the platform knows

test_a_declared_view_needs_a_grant_on_each_source if {
	decision := with_views([summary], declared(false))
	fixture.refused(decision, [blue("not_granted", 0)])
	count(decision.accesses) == 1
	decision.accesses[0].owner == "red"
	granted := with_views_and_authors([summary], declared(false), fixture.teams)
	granted.allow == true
	granted.accesses == [{
		"owner": "red", "grants": ["all"], "filter": null, "mask": [], "max_documents": null, "max_time_ms": null,
	}]
}

test_unless_it_is_enough if {
	with_views([summary], declared(true)).allow == true
}

test_another_collection_is_no_view if {
	every name in ["summar", "Summary", "summary2", ""] {
		with_views([fixture.read("shop", name)], declared(false)).allow == true
	}
	whole := {"kind": "metadata", "database": "", "collection": "", "via": ""}
	with_views([whole], declared(false)).allow == true
	target := {"kind": "metadata", "database": "", "collection": "", "via": "", "target": {"kind": "cluster", "id": "c"}}
	with_views([target], declared(false)).allow == true
}

test_to_touch_the_name_alone_needs_no_source if {
	implied("drop") == 0
	implied("create") == 0
	implied("update") == 1
	implied("metadata") == 1
}

# METADATA
# title: How many accesses a kind of access to the view implies
implied(kind) := number if {
	number := count(views.implied) with input as fixture.about([object.union(summary, {"kind": kind})])
		with data.mcp.platform.deployments as {"east": {"views": declared(false)}}
		with data.mcp.platform.routing.deployment as "east"
}

test_sources_that_are_views_are_followed if {
	through := {"shop": {
		"summary": {"sources": [at("shop", "middle"), at("shop", "returns")], "alone": false},
		"middle": {"sources": [at("shop", "summary"), at("blue", "orders")], "alone": false},
	}}
	fixture.refused(with_views([summary], through), [blue("not_granted", 0)])
	with_views_and_authors([summary], through, fixture.teams).allow == true
	enough := json.patch(through, [{"op": "replace", "path": "/shop/middle/alone", "value": true}])
	with_views([summary], enough).allow == true
}

test_sources_of_views_that_it_does_not_read_are_not if {
	other := {"shop": {"summary": {"sources": [at("shop", "returns")], "alone": false}, "other": declared(false).shop.summary}}
	with_views([summary], other).allow == true
	fixture.refused(with_views([fixture.read("shop", "other")], other), [blue("not_granted", 0)])
}

test_what_is_declared_and_what_was_found_are_both_asked_about if {
	found := behind("read", "shop", "returns")
	fixture.refused(with_views([summary, found], declared(false)), [blue("not_granted", 0)])
	with_views([summary, found], {}).allow == true
	listed := behind("read", "blue", "orders")
	fixture.refused(with_views([summary, found, listed], declared(false)), [blue("not_granted", 2)])
}

test_a_found_source_that_is_declared_as_a_view_leads_on_under_the_callers_view if {
	middle := {"shop": {"middle": {"sources": [at("blue", "orders")], "alone": false}}}
	accesses := [summary, behind("read", "shop", "middle")]
	fixture.refused(with_views(accesses, middle), [blue("not_granted", 1)])
	with_views(accesses, object.union(middle, declared(true))).allow == true
}

test_a_grant_on_each_source_is_none_on_the_view if {
	says := object.union(fixture.teams, {"red": {"grant": set()}})
	decision := with_views_and_authors([summary], declared(false), says)
	fixture.refused(decision, [{"code": "not_granted", "source": "red", "access": 0}])
}

test_reasons_of_the_whole_call_stay_so if {
	asked := json.patch(fixture.about([summary]), [{"op": "replace", "path": "/command/traits", "value": ["server_side_js"]}])
	changed := json.patch(fixture.tables.deployments, [{"op": "add", "path": "/east/views", "value": declared(false)}])
	decision := fixture.decide(asked, {"deployments": changed}, authors)
	fixture.refused(decision, [fixture.reason("trait_refused", null), blue("not_granted", 0)])
}

# METADATA
# title: The decision where blue grants its orders under this
blue_grants(grant) := with_views_and_authors([fixture.read("shop", "orders"), summary], declared(false), says) if {
	says := object.union(authors, {"blue": {"grant": {object.union(grant, {"id": "some"})}, "deny": set()}})
}

test_a_filter_or_mask_of_a_source_means_nothing_on_a_view if {
	fixture.refused(blue_grants({"filter": {"region": "EU"}}), [blue("not_granted", 1)])
	fixture.refused(blue_grants({"mask": {"ssn"}}), [blue("not_granted", 1)])
	fixture.refused(blue_grants({"names": "reachable"}), [blue("not_granted", 1)])
	fixture.refused(blue_grants({"mask": {"ssn"}, "approval": "confirm"}), [blue("not_granted", 1)])
	blue_grants({}).allow == true
}

test_further_numbers_and_conditions_are_put_on_the_view if {
	decision := blue_grants({"max_bytes": 9, "no_collection_scan": true})
	decision.allow == true
	[object.filter(entry, ["max_bytes", "no_collection_scan"]) | some entry in decision.accesses] == [
		{},
		{"max_bytes": 9, "no_collection_scan": true},
	]
}

test_the_view_itself_is_granted_under_what_its_own_grant_says if {
	grant := {"id": "all", "filter": {"region": "EU"}, "mask": {"ssn"}, "max_documents": 7, "max_time_ms": 9, "approval": "confirm"}
	decision := with_views_and_authors([summary], declared(false), object.union(fixture.teams, {"red": {"grant": {grant}}}))
	decision.allow == true
	decision.accesses == [{
		"owner": "red", "grants": ["all"], "filter": {"region": "EU"}, "mask": ["ssn"], "max_documents": 7, "max_time_ms": 9,
	}]
	decision.approval == {"accesses": [{"access": 0, "codes": ["confirm"]}]}
}

test_its_numbers_and_approvals_are_put_on_the_view if {
	decision := blue_grants({"max_documents": 7, "approval": "confirm"})
	decision.allow == true
	[entry.max_documents | some entry in decision.accesses] == [null, 7]
	[entry.max_time_ms | some entry in decision.accesses] == [null, null]
	every entry in decision.accesses {
		count(object.filter(entry, ["max_bytes", "max_affected", "no_collection_scan"])) == 0
	}
	decision.approval == {"accesses": [{"access": 1, "codes": ["confirm"]}]}
}

# METADATA
# title: shop.summary on so many collections
many(number) := {"shop": {"summary": {"sources": sources, "alone": false}}} if {
	sources := [at("shop", sprintf("c%d", [n])) | some n, _ in array.slice(split(sprintf("%0300d", [0]), ""), 0, number)]
}

test_more_than_can_be_asked_about_is_refused if {
	with_views([summary], many(255)).allow == true
	fixture.refused(with_views([summary], many(256)), [fixture.reason("invalid_input", null)])
}

# --- declarations that are not of their form

test_a_declaration_must_be_sound if {
	every declaration in [
		"x",
		false,
		[],
		{"sources": [at("blue", "orders")]},
		{"alone": true},
		{"sources": [at("blue", "orders")], "alone": "true"},
		{"sources": [], "alone": true},
		{"sources": {}, "alone": true},
		{"sources": "blue.orders", "alone": true},
		{"sources": ["blue.orders"], "alone": false},
		{"sources": [{"database": "blue"}], "alone": false},
		{"sources": [at("", "orders")], "alone": false},
		{"sources": [at("blue", "")], "alone": false},
		{"sources": [at("blue", 7)], "alone": false},
		{"sources": [object.union(at("blue", "orders"), {"note": "x"})], "alone": false},
		{"sources": [at("blue", "orders")], "alone": true, "note": "x"},
	] {
		fixture.refused(
			with_views_and_authors([summary], {"shop": {"summary": declaration}}, fixture.teams),
			[fixture.reason("platform_data_invalid", 0)],
		)
	}
}

test_a_declaration_that_is_not_sound_is_not_enough if {
	unsound := {"shop": {"summary": {"sources": [], "alone": true}}}
	fixture.refused(with_views([behind("read", "blue", "orders")], unsound), [blue("not_granted", 0)])
}

test_also_where_another_view_leads_there if {
	through := {"shop": {"summary": {"sources": [at("shop", "middle")], "alone": false}, "middle": {"sources": []}}}
	decision := with_views_and_authors([summary], through, fixture.teams)
	fixture.refused(decision, [fixture.reason("platform_data_invalid", 0)])
	with_views_and_authors([fixture.read("shop", "orders")], through, fixture.teams).allow == true
}

test_tables_of_views_must_be_tables if {
	every table in ["x", false, null, [], {"shop": []}, {"shop": false}, {"other": "x"}] {
		decision := with_views_and_authors([summary], table, fixture.teams)
		fixture.refused(decision, [fixture.reason("platform_data_invalid", null)])
	}
	with_views_and_authors([summary], {"shop": {}}, fixture.teams).allow == true
}

test_a_declaration_of_the_same_name_in_another_database_is_another if {
	elsewhere := {"blue": {"orders": {"sources": []}}}
	accesses := [fixture.read("shop", "orders"), {"kind": "metadata", "database": "blue", "collection": "orders2", "via": ""}]
	with_views_and_authors(accesses, elsewhere, fixture.teams).allow == true
	beside := array.concat(accesses, [fixture.read("blue", "orders")])
	fixture.refused(with_views_and_authors(beside, elsewhere, fixture.teams), [fixture.reason("platform_data_invalid", 2)])
}
