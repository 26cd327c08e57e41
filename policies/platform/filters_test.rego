# METADATA
# title: Tests of mcp.platform.filters
package mcp.platform.filters_test

import data.mcp.lib
import data.mcp.platform.filters
import data.mcp.platform.fixture_test as fixture

# METADATA
# title: The question of a user with these claims
claims(given) := json.patch(fixture.question, [{"op": "replace", "path": "/subject/claims", "value": given}])

# METADATA
# title: The filter can be used for a user with these claims
usable(filter, given) if filters.usable(filter) with input as claims(given)

test_equality_in_and_ranges_over_plain_values_can_be_used if {
	every filter in [
		{"region": "EU"},
		{"live": false, "level": 3},
		{"org.region": {"$eq": "EU"}},
		{"region": {"$in": ["EU", "US"]}},
		{"level": {"$gte": 1, "$lt": 5}},
		{"$or": [{"region": "EU"}, {"$and": [{"owner": "alice"}, {"level": {"$lte": 2}}]}]},
		{"day": {"$date": "2026-03-31T12:00:00Z"}, "by": {"$oid": "0123456789abcdef01234567"}},
		{"day": {"$gte": {"$date": "2026-03-31T12:00:00.000Z"}, "$lt": {"$date": "2026-04-30T00:00:00Z"}}},
		{"by": {"$in": [{"$oid": "0123456789abcdef01234567"}]}},
	] {
		usable(filter, {})
	}
}

test_anything_else_cannot if {
	every filter in [
		{},
		{"region": null},
		{"region": ""},
		{"region": []},
		{"region": ["EU"]},
		{"region": {}},
		{"region": {"$ne": "EU"}},
		{"region": {"$in": []}},
		{"region": {"$in": "EU"}},
		{"region": {"$in": [["EU"]]}},
		{"region": {"$in": [null]}},
		{"region": {"$eq": {"x": 1}}},
		{"region": {"x": "EU"}},
		{"region": {"$gt": null}},
		{"$or": []},
		{"$or": {"region": "EU"}},
		{"$or": ["EU"]},
		{"$or": [{}]},
		{"$nor": [{"region": "EU"}]},
		{"$where": "true"},
		{"$expr": {"$eq": [1, 1]}},
		{"region": {"$or": [{"x": 1}]}},
		{"day": {"$date": "next year"}},
		{"day": {"$date": "2026-03-31T12:00:00"}},
		{"day": {"$date": "2026-03-31T12:00:00+01:00"}},
		{"day": {"$date": {"$numberLong": "0"}}},
		{"day": {"$date": 5}},
		{"day": {"$date": "2026-03-31T12:00:00Z", "$gt": 1}},
		{"by": {"$oid": "0123456789ABCDEF01234567"}},
		{"by": {"$oid": "x"}},
		{"by": {"$in": [{"$oid": "x"}]}},
		{"by": {"$numberLong": "5"}},
		{"$date": "2026-03-31T12:00:00Z"},
	] {
		not usable(filter, {})
	}
}

test_an_object_that_came_with_a_claim_is_no_condition if {
	given := {"region": {"$gte": "A"}, "deep": {"list": [{"$in": ["EU"]}]}}
	not usable({"region": {"$gte": "A"}}, given)
	not usable({"$and": [{"region": {"$in": ["EU"]}}]}, given)
	usable({"region": {"$gte": "B"}}, given)
	not usable({"day": {"$date": "2026-03-31T12:00:00Z"}}, {"day": {"$date": "2026-03-31T12:00:00Z"}})
	usable({"day": {"$date": "2026-03-31T12:00:00Z"}}, {"day": "2026-03-31T12:00:00Z"})
}

# METADATA
# title: The decision where team red grants this
red(grants) := fixture.decide(fixture.question, {}, object.union(fixture.teams, {"red": {"grant": grants, "deny": set()}}))

test_a_grant_whose_filter_cannot_be_used_is_no_grant if {
	only := red({{"id": "mine", "filter": {"region": null}}})
	not only.allow
	{reason.code | some reason in only.reasons} == {"not_granted"}
	both := red({{"id": "mine", "filter": {"region": null}}, {"id": "eu", "filter": {"region": "EU"}}})
	both.allow
	both.accesses[0].grants == ["eu"]
	both.accesses[0].filter == {"region": "EU"}
}

test_a_claim_is_one_plain_value_or_undefined if {
	lib.claim("region") == "EU" with input as claims({"region": "EU"})
	lib.claim("level") == 3 with input as claims({"level": 3})
	every value in [null, "", [], ["EU"], {"$gte": ""}] {
		not lib.claim("region") with input as claims({"region": value})
	}
	not lib.claim("region") with input as claims({})
}

test_a_claim_with_several_values_is_a_choice_of_them if {
	lib.one_of_claim("region") == {"$in": ["EU"]} with input as claims({"region": "EU"})
	lib.one_of_claim("region") == {"$in": ["EU", "US"]} with input as claims({"region": ["EU", "US"]})
	every value in [null, "", [], [""], ["EU", null], [["EU"]], {"$gte": ""}] {
		not lib.one_of_claim("region") with input as claims({"region": value})
	}
}
