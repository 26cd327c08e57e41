# METADATA
# title: Tests of mcp.platform.facts
# description: Each known answer would be another one if the engine or the set were not as expected.
package mcp.platform.facts_test

import data.mcp.platform.facts

test_the_demanded_error_needs_strict_mode if {
	# The test runner is not strict: there the error leaves `failed` undefined, and the answer passes.
	answer := facts.answer with input as {"nonce": "x", "fail": true}
	answer.ok == true
}

test_a_demanded_error_that_does_not_come_is_no_pass if {
	answer := facts.answer with input as {"nonce": "x", "fail": true} with facts.no_number as "7"
	answer.ok == false
}

test_no_error_comes_where_none_is_demanded if {
	every asked in [{"nonce": "x"}, {"nonce": "x", "fail": false}] {
		answer := facts.answer with input as asked with facts.no_number as "7"
		answer.ok == true
	}
}

test_a_question_without_a_text_to_echo_has_no_answer if {
	every asked in [{}, {"nonce": 7}, {"nonce": null}] {
		answer := facts.answer with input as asked
		answer == {"v": 1, "ok": false, "echo": "", "known": {}}
	}
}

# Only strict mode makes it an error; that the error is not about a number can be tested without strict mode.
test_the_demanded_error_is_about_no_number if {
	is_string(facts.no_number)
	not regex.match(`[0-9]`, facts.no_number)
}

test_what_holds_of_nothing_is_told_from_what_holds_of_something if {
	facts.every_of_undefined == false
	facts.every_of_undefined with data.mcp.platform.no_such_table as [1]
	not facts.every_of_undefined with data.mcp.platform.no_such_table as [1, 2]
	facts.negation_of_undefined == false
	facts.negation_of_undefined with data.mcp.platform.no_such_table as ["y"]
}

test_an_unknown_package_is_told_from_a_known_one if {
	facts.stranger == "undefined" with input as {"nonce": "x"}
	facts.stranger == {"g"} with input as {"nonce": "x"} with data.mcp.teams as {"x": {"grant": {"g"}}}
}

test_the_index_finds_a_rule_where_its_body_holds_and_only_there if {
	facts.indexed == {"set", "array", "with a condition"} with input as {"nonce": "x"}
	facts.indexed == {"set", "array", "with a condition", "of another value"} with input as {"nonce": "x", "fail": "x"}
	facts.indexed == {"set", "array"} with input as {"nonce": 7}
	facts.indexed == set() with input as {"fail": true}
}
