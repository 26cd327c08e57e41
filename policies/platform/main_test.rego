# METADATA
# title: Tests of mcp.main
package mcp.main_test

import data.mcp.main
import data.mcp.platform.fixture_test as fixture

test_a_granted_call_is_allowed if {
	decision := fixture.decide(fixture.question, {}, fixture.teams)
	decision == {
		"v": 1,
		"allow": true,
		"reasons": [],
		"server": "ro",
		"accesses": [{
			"owner": "red",
			"grants": ["all"],
			"filter": null,
			"mask": [],
			"max_documents": null,
			"max_time_ms": null,
		}],
		"approval": null,
		"revision": main.revision,
	}
}

test_every_access_needs_a_grant if {
	accesses := [fixture.read("shop", "orders"), fixture.read("nobodys", "orders")]
	decision := fixture.decide(fixture.about(accesses), {}, fixture.teams)
	fixture.refused(decision, [fixture.reason("no_owner", 1)])
	[entry.owner | some entry in decision.accesses] == ["red", ""]
}

test_two_owners_are_both_asked if {
	accesses := [fixture.read("shop", "orders"), fixture.read("blue", "orders")]
	authors := object.union(fixture.teams, {"blue": {"grant": set()}})
	fixture.allowed(fixture.about(accesses))
	decision := fixture.decide(fixture.about(accesses), {}, authors)
	fixture.refused(decision, [{"code": "not_granted", "source": "blue", "access": 1}])
}

test_a_malformed_question_is_refused_with_everything_closed if {
	every asked in [{}, [], "x", null, 1, {"v": 1}] {
		decision := fixture.decide(asked, {}, fixture.teams)
		decision == {
			"v": 1,
			"allow": false,
			"reasons": [fixture.reason("invalid_input", null)],
			"server": "",
			"accesses": [],
			"approval": null,
			"revision": main.revision,
		}
	}
}

test_no_question_is_refused if {
	main.decision.allow == false
	fixture.codes(main.decision) == {"invalid_input"}
}

test_the_revision_is_that_of_the_data if {
	main.revision == "r1" with data.mcp.revision as "r1"
	decision := main.decision with data.mcp.revision as "r1"
	decision.revision == "r1"
}

test_a_revision_that_is_no_text_is_none if {
	main.revision == "" with data.mcp.revision as 7
}

test_reasons_are_sorted_and_each_once if {
	asked := object.union(fixture.question, {
		"accesses": [fixture.read("nobodys", "a"), fixture.read("admin", "b")],
		"command": object.union(fixture.question.command, {"traits": ["cost", "server_side_js"]}),
	})
	decision := fixture.decide(asked, {}, fixture.teams)
	decision.reasons == [
		fixture.reason("trait_refused", null),
		fixture.reason("no_owner", 0),
		fixture.reason("no_owner", 1),
		fixture.reason("system_namespace", 1),
	]
}

test_allow_is_never_without_a_grant_even_without_reasons if {
	every granted in [{}, {0: set()}] {
		decision := fixture.decide(fixture.question, {}, fixture.teams) with data.mcp.platform.verdicts.granted as granted
			with data.mcp.platform.verdicts.reasons as set()
		decision.allow == false
	}
}

test_an_approval_is_asked_if_every_grant_asks if {
	authors := object.union(fixture.teams, {"red": {"grant": {{"id": "a", "approval": "second_person"}, {"id": "b", "approval": "confirm"}}}})
	decision := fixture.decide(fixture.question, {}, authors)
	decision.allow == true
	decision.approval == {"accesses": [{"access": 0, "codes": ["confirm", "second_person"]}]}
}

test_an_approval_is_not_asked_if_one_grant_asks_for_none if {
	authors := object.union(fixture.teams, {"red": {"grant": {{"id": "a", "approval": "second_person"}, {"id": "b"}}}})
	decision := fixture.decide(fixture.question, {}, authors)
	decision.allow == true
	decision.approval == null
}

test_a_denied_call_asks_for_no_approval if {
	authors := object.union(fixture.teams, {"red": {"grant": {{"id": "a", "approval": "second_person"}}, "deny": {"no"}}})
	decision := fixture.decide(fixture.question, {}, authors)
	fixture.refused(decision, [{"code": "team_denied", "source": "red", "access": 0}])
}

test_selftest_echoes_and_knows if {
	answer := main.selftest with input as {"nonce": "x\", \"ok\": false"}
	answer.ok == true
	answer.echo == "x\", \"ok\": false"
	answer.known.min_of_numbers == 55
	answer.known.roles_of_one_user == {"reader"}
	answer.known.unknown_package == "undefined"
}

test_selftest_without_a_nonce_is_not_ok if {
	answer := main.selftest with input as {}
	answer == {"v": 1, "ok": false, "echo": "", "known": {}}
}

test_selftest_that_must_fail_does_not_pass if {
	answer := main.selftest with input as {"nonce": "x", "fail": false}
	answer.ok == true
}
