# METADATA
# title: Tests of mcp.platform.verdicts and terms
package mcp.platform.verdicts_test

import data.mcp.platform.combination
import data.mcp.platform.fixture_test as fixture
import data.mcp.platform.terms
import data.mcp.platform.verdicts

# METADATA
# title: The decision where team red says this
says(answer) := fixture.decide(fixture.question, {}, object.union(fixture.teams, {"red": answer}))

red(code) := {"code": code, "source": "red", "access": 0}

test_no_grant_is_a_refusal if {
	fixture.refused(says({"grant": set(), "deny": set()}), [red("not_granted")])
}

test_a_team_without_a_policy_grants_nothing if {
	decision := fixture.decide(fixture.question, {}, {"blue": fixture.teams.blue})
	fixture.refused(decision, [red("not_granted")])
	decision.accesses[0].owner == "red"
}

test_a_team_that_denies_beats_its_grants if {
	fixture.refused(says({"grant": {{"id": "all"}}, "deny": {"no"}}), [red("team_denied")])
}

test_an_id_that_only_looks_like_the_platforms_is_a_teams if {
	every id in ["platform", "platform-x", "a.platform.x"] {
		says({"grant": {{"id": id}}}).accesses[0].grants == [id]
	}
}

test_a_team_without_a_deny_denies_nothing if {
	says({"grant": {{"id": "all"}}}).allow == true
}

test_what_a_team_denies_is_not_repeated if {
	decision := says({"grant": {{"id": "all"}}, "deny": {input_text}})
	fixture.refused(decision, [red("team_denied")])
	not contains(json.marshal(decision), input_text)
}

input_text := "made of the question"

test_a_grant_set_that_is_not_of_the_contract_is_an_error_of_the_team if {
	every grant in [
		true,
		"all",
		[{"id": "all"}],
		{"id": "all"},
		{"all"},
		{{"name": "all"}},
		{{"id": ""}},
		{{"id": "All Orders"}},
		{{"id": 7}},
		{{"id": "platform.view-alone"}},
		{{"id": "all"}, {"id": "platform.x", "mask": ["ssn"]}},
		{{"id": "all", "masks": ["ssn"]}},
		{{"id": "all", "filter": {}}},
		{{"id": "all", "filter": null}},
		{{"id": "all", "filter": ["a"]}},
		{{"id": "all", "mask": []}},
		{{"id": "all", "mask": set()}},
		{{"id": "all", "mask": "ssn"}},
		{{"id": "all", "mask": [""]}},
		{{"id": "all", "mask": ["$ssn"]}},
		{{"id": "all", "mask": ["a..b"]}},
		{{"id": "all", "mask": [1]}},
		{{"id": "all", "max_documents": 0}},
		{{"id": "all", "max_documents": -1}},
		{{"id": "all", "max_documents": "50"}},
		{{"id": "all", "max_documents": null}},
		{{"id": "all", "max_documents": 1.5}},
		{{"id": "all", "max_time_ms": 2147483648}},
		{{"id": "all", "approval": true}},
		{{"id": "good"}, {"id": "all", "mask": []}},
	] {
		fixture.refused(says({"grant": grant, "deny": set()}), [red("team_policy_error")])
	}
}

test_a_deny_that_is_no_set_is_an_error_of_the_team if {
	every deny in [true, false, "no", ["no"], [], {}, null] {
		decision := says({"grant": {{"id": "all"}}, "deny": deny})
		fixture.refused(decision, [red("team_policy_error")])
	}
}

test_an_error_of_one_team_is_nothing_to_another if {
	authors := object.union(fixture.teams, {"blue": {"grant": "broken", "deny": true}})
	fixture.decide(fixture.question, {}, authors).allow == true
}

test_nor_is_it_where_both_are_asked_in_one_call if {
	says_of := object.union(fixture.teams, {"blue": {"grant": {{"id": "all", "mask": []}}, "deny": set()}})
	both := fixture.about([fixture.read("shop", "orders"), fixture.read("blue", "orders")])
	decision := fixture.decide(both, {}, says_of)
	fixture.refused(decision, [{"code": "team_policy_error", "source": "blue", "access": 1}])
	decision.accesses[0].grants == ["all"]
}

test_what_is_granted_under_a_condition_obliges_no_other_access if {
	says_of := {"red": {"grant": {{"id": "eu", "filter": {"region": "EU"}}}, "deny": set()}, "blue": {"grant": set()}}
	both := fixture.about([fixture.read("shop", "orders"), fixture.read("blue", "orders")])
	obligation := {"id": "o", "kinds": ["read"], "collections": ["*"], "max_documents": 5}
	path := "/east/databases/blue/obligations"
	changed := json.patch(fixture.tables.deployments, [{"op": "replace", "path": path, "value": [obligation]}])
	decision := fixture.decide(both, {"deployments": changed}, says_of)
	fixture.refused(decision, [{"code": "not_granted", "source": "blue", "access": 1}])
	decision.accesses == [
		object.union({"owner": "red", "grants": ["eu"]}, object.union(verdicts.free, {"filter": {"region": "EU"}})),
		object.union({"owner": "blue", "grants": []}, verdicts.free),
	]
}

test_too_many_grants_are_an_error_of_the_team if {
	digits := split("0123456789abcdef", "")
	most := {{"id": concat("", [high, low])} | some high in digits; some low in digits}
	count(most) == terms.most_grants
	says({"grant": most, "deny": set()}).allow == true
	fixture.refused(says({"grant": (most | {{"id": "one-more"}}), "deny": set()}), [red("team_policy_error")])
}

test_every_part_of_a_grant_may_be_there if {
	grant := {
		"id": "g.1_a-b", "filter": {"region": "EU"}, "mask": {"ssn", "a.b"}, "max_documents": 5, "max_time_ms": 100,
		"approval": "confirm",
	}
	decision := says({"grant": {grant}, "deny": set()})
	decision.allow == true
	decision.accesses == [{
		"owner": "red", "grants": ["g.1_a-b"], "filter": {"region": "EU"}, "mask": ["a.b", "ssn"],
		"max_documents": 5, "max_time_ms": 100,
	}]
}

test_a_team_sees_its_own_access_and_no_other if {
	asked := fixture.about([fixture.read("shop", "orders"), fixture.read("blue", "orders")])
	question := verdicts.question(asked.accesses[1]) with input as asked
	question.access == asked.accesses[1]
	object.keys(question) == {"v", "subject", "actor", "action", "access", "command", "context"}
}

test_what_is_not_granted_obliges_to_nothing if {
	obligation := {"id": "o", "kinds": ["read"], "collections": ["*"], "mask": ["ssn"], "max_documents": 5}
	path := "/east/databases/shop/obligations"
	changed := json.patch(fixture.tables.deployments, [{"op": "replace", "path": path, "value": [obligation]}])
	authors := object.union(fixture.teams, {"red": {"grant": set()}})
	decision := fixture.decide(fixture.question, {"deployments": changed}, authors)
	fixture.refused(decision, [red("not_granted")])
	decision.accesses == [object.union({"owner": "red", "grants": []}, verdicts.free)]
}

test_a_plain_grant_says_at_once_what_it_comes_to_beside_any_others if {
	others := [
		{"id": "b", "filter": {"region": "EU"}},
		{"id": "c", "filter": {"region": "US"}, "mask": {"ssn"}},
		{"id": "d", "mask": ["a.b", "ssn"]},
		{"id": "e", "max_documents": 5, "max_time_ms": 100},
		{"id": "f", "filter": {"live": true}, "max_documents": 7},
		{"id": "g", "approval": "confirm"},
		{"id": "h", "filter": {"live": true}, "mask": {"a"}, "max_documents": 1, "max_time_ms": 1, "approval": "second_person"},
	]
	offers := [{{"id": "a"}}, {{"id": "a"}, {"id": "plain"}}, ({{"id": "a"}} | {other | some other in others})]
	pairs := [{{"id": "a"}, one, other} | some one in others; some other in others]
	every grants in array.concat(offers, pairs) {
		decision := says({"grant": grants})
		decision.accesses == [object.union(
			{"owner": "red", "grants": sort({grant.id | some grant in grants})},
			combination.combined(grants, []),
		)]
		combination.combined(grants, []) == verdicts.free
		decision.approval == null
		combination.approvals(grants, []) == set()
	}
}
