# METADATA
# title: Tests of mcp.platform.bounds
package mcp.platform.bounds_test

import data.mcp.platform.fixture_test as fixture

# METADATA
# title: The fixture's question, asking for this much
asking(amplifiers) := json.patch(fixture.question, [
	{"op": "add", "path": "/command/amplifiers", "value": amplifiers},
	{"op": "replace", "path": "/command/traits", "value": ["amplifying"]},
])

buckets(number) := {"construct": "$bucketAuto.buckets", "number": number, "at": "/arguments/pipeline/0"}

top(number) := {"construct": "$topN.n", "number": number, "at": "/arguments/pipeline/1"}

refusal(construct, most) := object.union(fixture.reason("trait_refused", null), {"bound": {"construct": construct, "most": most}})

test_what_is_within_its_bound_is_allowed if {
	fixture.allowed(asking([buckets(100)]))
	fixture.allowed(asking([buckets(0.5), top(10)]))
}

test_what_is_over_its_bound_is_not_and_the_bound_is_said if {
	refused := fixture.decide(asking([buckets(101)]), {}, fixture.teams)
	fixture.refused(refused, [refusal("$bucketAuto.buckets", 100)])
	both := fixture.decide(asking([buckets(101), top(11)]), {}, fixture.teams)
	fixture.refused(both, [refusal("$bucketAuto.buckets", 100), refusal("$topN.n", 10)])
}

test_a_number_that_nobody_knows_is_over_every_bound if {
	every number in [null, 1e300] {
		decision := fixture.decide(asking([buckets(number)]), {}, fixture.teams)
		fixture.refused(decision, [refusal("$bucketAuto.buckets", 100)])
	}
}

test_a_construct_that_is_not_in_the_table_is_closed if {
	decision := fixture.decide(asking([buckets(1)]), {"amplifiers": {"$topN.n": 10}}, fixture.teams)
	fixture.refused(decision, [refusal("$bucketAuto.buckets", 0)])
}

test_the_trait_opens_it_to_a_group if {
	opened := {"traits": {"amplifying": {"groups": ["staff"]}}}
	fixture.decide(asking([buckets(null)]), opened, fixture.teams).allow == true
	other := {"traits": {"amplifying": {"groups": ["loaders"]}}}
	fixture.refused(fixture.decide(asking([buckets(null)]), other, fixture.teams), [refusal("$bucketAuto.buckets", 100)])
}

test_the_trait_without_a_number_is_closed_like_any_other if {
	asked := json.patch(fixture.question, [{"op": "replace", "path": "/command/traits", "value": ["amplifying"]}])
	fixture.refused(fixture.decide(asked, {}, fixture.teams), [fixture.reason("trait_refused", null)])
	fixture.decide(asked, {"traits": {"amplifying": {"groups": ["staff"]}}}, fixture.teams).allow == true
}
