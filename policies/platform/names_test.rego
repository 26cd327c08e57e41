# METADATA
# title: Tests of mcp.platform.names
package mcp.platform.names_test

import data.mcp.platform.names

test_a_name_matches_itself_and_no_other if {
	names.matches(["orders"], "orders")
	names.matches(["customers", "orders"], "orders")
	not names.matches(["orders"], "orders2")
	not names.matches(["orders"], "Orders")
	not names.matches([], "orders")
}

test_a_glob_spans_dots if {
	names.matches(["ord*"], "orders.archive")
	names.matches(["*.archive"], "a.b.archive")
	not names.matches(["ord*"], "reorders")
}

test_every_name_is_not_the_whole if {
	names.matches(["*"], "orders")
	names.matches(["*"], "a.b")
	names.matches([""], "")
	not names.matches(["*"], "")
	not names.matches(["o*", "*"], "")
	not names.matches([""], "orders")
}

test_what_is_no_text_matches_no_glob if {
	every name in [7, null, ["orders"], {"orders": 1}] {
		not names.matches(["*"], name)
		not names.matches(["o*"], name)
	}
}

test_one_of_the_held_values_is_listed if {
	names.any_of(["staff", "guests"], ["guests"])
	not names.any_of(["staff"], ["guests"])
	not names.any_of(["staff"], [])
	not names.any_of([], ["staff"])
}

test_the_list_may_say_everybody_and_what_is_held_may_not if {
	names.any_of(["*"], ["guests"])
	names.any_of(["*"], [])
	not names.any_of(["staff"], ["*"])
}
