# METADATA
# title: Tests of mcp.platform.terms
package mcp.platform.terms_test

import data.mcp.platform.terms

# METADATA
# title: An obligation with every part
whole := {
	"id": "o",
	"kinds": ["read"],
	"collections": ["*"],
	"filter": {"live": true},
	"mask": ["a.b"],
	"max_documents": 1,
	"max_time_ms": 2147483647,
	"max_affected": 1,
	"max_bytes": 1,
	"no_collection_scan": true,
	"approval": "confirm",
	"names": "reachable",
}

# METADATA
# title: A grant with every part
grant := object.remove(whole, ["kinds", "collections"])

test_grants_and_obligations_with_every_part_are_sound if {
	terms.sound_grant(grant)
	terms.sound_grant({"id": "g"})
	terms.sound_obligation(whole)
	terms.sound_obligation({"id": "o", "kinds": ["read"], "collections": ["*"]})
}

test_a_grant_has_no_places_of_its_own if {
	not terms.sound_grant(whole)
	not terms.sound_grant(object.union(grant, {"kinds": ["read"]}))
}

test_an_obligation_says_where_it_holds if {
	every part in ["id", "kinds", "collections"] {
		not terms.sound_obligation(object.remove(whole, [part]))
	}
	every change in [{"kinds": []}, {"kinds": ["reed"]}, {"collections": []}, {"collections": [1]}] {
		not terms.sound_obligation(object.union(whole, change))
	}
}

test_every_part_is_of_its_type if {
	every change in [
		{"filter": {}},
		{"filter": ["live"]},
		{"mask": []},
		{"mask": set()},
		{"mask": {"a": 1}},
		{"mask": ["a", ""]},
		{"mask": ["$a"]},
		{"mask": ["a..b"]},
		{"mask": ["a", 1]},
		{"mask": ["a.0"]},
		{"mask": ["a.$b"]},
		{"mask": ["a.__proto__"]},
		{"mask": ["a.b.c.d.e.f"]},
		{"mask": [sprintf("a%0256d", [0])]},
		{"mask": [{"field": "a"}]},
		{"mask": [{"field": "a", "as": "last4", "keep": 4}]},
		{"mask": [{"field": "$a", "as": "last4"}]},
		{"mask": [{"field": "a", "as": "last5"}]},
		{"mask": [{"field": "a", "as": "bucket:1"}]},
		{"mask": [{"field": "a", "as": "bucket:0x10"}]},
		{"mask": [{"field": "a", "as": "bucket:2.5"}]},
		{"mask": [{"field": "a", "as": "bucket:1000000000000000"}]},
		{"mask": [{"field": "a", "as": 4}]},
		{"mask": [["a"]]},
		{"max_documents": 0},
		{"max_documents": 1.5},
		{"max_documents": 2147483648},
		{"max_documents": "1"},
		{"max_time_ms": 0},
		{"max_affected": 0},
		{"max_affected": "1"},
		{"max_bytes": 0},
		{"max_bytes": 0.5},
		{"no_collection_scan": false},
		{"no_collection_scan": 1},
		{"approval": ""},
		{"approval": 1},
		{"approval": "lead"},
		{"approval": "second-person"},
		{"names": "all"},
		{"names": true},
		{"note": "x"},
		{"id": ""},
	] {
		not terms.sound_grant(object.union(object.remove(grant, object.keys(change)), change))
	}
	not terms.sound_grant([])
}

test_a_mask_is_a_set_or_an_array if {
	terms.sound("mask", {"a", "b"})
	terms.sound("mask", ["a", "b"])
	not terms.sound("mask", "a")
}

test_a_masked_field_says_what_is_left_of_it if {
	terms.sound("mask", {"a", {"field": "b.c.d.e.f", "as": "absent"}, {"field": "card", "as": "last4"}})
	every form in ["bucket:2", "bucket:9", "bucket:10", "bucket:10000", "bucket:999999999999999"] {
		terms.sound("mask", [{"field": "a", "as": form}])
	}
	every path in ["a", "ä.b c", "a-1.b2", "0a", sprintf("a%0255d", [0])] {
		terms.field(path)
	}
}

test_identifiers_are_short_and_plain if {
	every value in ["g", "0", "g.1_a-b", sprintf("g%063d", [0])] {
		terms.identifier(value)
	}
	every value in ["", "G", "-g", "g g", "g\n", sprintf("g%064d", [0])] {
		not terms.identifier(value)
	}
}

test_plain_grants_are_the_sound_ones_that_say_only_what_they_are_called if {
	terms.plain({{"id": "a"}, {"id": "g.1_a-b"}}) == {{"id": "a"}, {"id": "g.1_a-b"}}
	others := {{"id": "A"}, {"id": ""}, {"id": 7}, {"id": "a", "x": 1}, {"id": "a", "max_documents": 5}, {"name": "a"}, {}, "a", 7, null}
	terms.plain(others) == set()
	every grant in terms.plain({{"id": "a"}} | others) {
		terms.sound_grant(grant)
	}
}
