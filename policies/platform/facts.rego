# METADATA
# title: Known answers of the engine
# description: >-
#   Each line is something that an engine which calls itself Rego has been measured to get wrong, with a wrong allow as the
#   consequence. The asker compares the answers with its own constants and refuses to start where one differs. With `fail`
#   true the question must end in an error: that is how the asker sees that strict builtin errors are on.
# schemas:
#   - input: schema.selftest
package mcp.platform.facts

# METADATA
# title: The answer, always defined
# scope: document
default answer := {"v": 1, "ok": false, "echo": "", "known": {}}

answer := {"v": 1, "ok": true, "echo": input.nonce, "known": known} if {
	is_string(input.nonce)
	not failed
}

# METADATA
# title: A builtin error on demand
failed if {
	input.fail == true
	to_number(no_number)
}

# METADATA
# title: What the demanded error is about
no_number := "not a number"

# METADATA
# title: Who holds which role; for the leak across users
holders := {"alice": ["admin"], "bob": ["reader"]}

# METADATA
# title: A comprehension that indexes by its argument
roles_of(user) := {role | some role in holders[user]}

# METADATA
# title: A package that does not exist
default stranger := "undefined"

stranger := data.mcp.teams[input.nonce].grant

# METADATA
# title: Everything holds of nothing, which is why it is never asked without a count
default every_of_undefined := false

every_of_undefined if {
	every item in data.mcp.platform.no_such_table {
		item == 1
	}
}

# METADATA
# title: Nor does the opposite of a question about nothing hold
default negation_of_undefined := false

negation_of_undefined if not "x" in data.mcp.platform.no_such_table

# METADATA
# title: Rules that the index of rules has to find
# description: >-
#   The index of OPA 1.21.0 to 1.22.0 found none of those whose body compares a reference with a collection that has another
#   reference in it, so that a deny of that kind denied nothing. The last one says that the body still decides.
indexed contains "set" if input.nonce in {"a", input.nonce}

indexed contains "array" if input.nonce in ["a", input.nonce]

indexed contains "with a condition" if {
	input.nonce in {"a", input.nonce}
	is_string(input.nonce)
}

indexed contains "of another value" if input.nonce in {"a", input.fail}

# METADATA
# title: The answers
known := {
	"min_of_numbers": min([1000, 55]),
	"max_of_numbers": max([1000, 55, 9]),
	"sort_of_numbers": sort([1000, 55, 9]),
	"roles_of_one_user": roles_of("bob"),
	"string_is_not_below_number": [(value <= 100) | some value in ["50", 50]],
	"null_is_below_false": [(null < value) | some value in [false]],
	"rfc3339_with_z": time.parse_rfc3339_ns("2024-01-01T00:00:00Z"),
	"length_of_escaped_text": count("a\"b\n"),
	"escape_is_the_character": [(value == "a") | some value in ["\u0061"]],
	"unions_are_deep": object.union_n([{"a": {"b": 1}}, {"a": {"c": 2}}]),
	"unknown_package": stranger,
	"every_of_undefined": every_of_undefined,
	"negation_of_undefined": negation_of_undefined,
	"hash": crypto.sha256("a\"b"),
	"glob_spans_dots": glob.match("a*", null, "a.b"),
	"integers_are_exact": 9007199254740993 - 1,
	"index_of_rules": sort(indexed),
	"text_stays_text": "x\", \"allow\": true, \"z\":\"",
}
