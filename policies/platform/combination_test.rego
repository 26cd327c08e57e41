# METADATA
# title: Tests of mcp.platform.combination
package mcp.platform.combination_test

import data.mcp.platform.combination
import data.mcp.platform.verdicts

eu := {"region": "EU"}

us := {"region": "US"}

# METADATA
# title: What these grants come to without anything of the platform's
together(grants) := combination.combined(grants, [])

test_nothing_obliges_to_nothing if {
	together({{"id": "a"}}) == {"filter": null, "mask": [], "max_documents": null, "max_time_ms": null}
}

test_filters_are_ored if {
	together({{"id": "a", "filter": eu}, {"id": "b", "filter": us}}).filter == {"$or": [eu, us]}
}

test_the_same_filter_twice_is_one if {
	together({{"id": "a", "filter": eu}, {"id": "b", "filter": eu}}).filter == eu
}

test_a_grant_without_a_filter_sees_all_rows if {
	together({{"id": "a", "filter": eu}, {"id": "b"}}).filter == null
}

test_masks_are_intersected_where_no_filter_is_involved if {
	together({{"id": "a", "mask": {"x", "y"}}, {"id": "b", "mask": ["y", "z"]}}).mask == ["y"]
	together({{"id": "a", "mask": {"x"}}, {"id": "b"}}).mask == []
}

test_masks_are_intersected_where_the_filter_is_the_same if {
	together({{"id": "a", "filter": eu, "mask": {"x", "y"}}, {"id": "b", "filter": eu, "mask": {"y"}}}).mask == ["y"]
}

test_different_filters_with_different_masks_take_the_tighter if {
	combined := together({{"id": "a", "filter": eu, "mask": {"x"}}, {"id": "b", "filter": us, "mask": {"y"}}})
	combined.mask == ["x", "y"]
	combined.filter == {"$or": [eu, us]}
}

test_different_filters_with_the_same_mask_keep_it if {
	together({{"id": "a", "filter": eu, "mask": {"x"}}, {"id": "b", "filter": us, "mask": {"x"}}}).mask == ["x"]
}

test_a_filtered_grant_lifts_no_mask_of_an_unfiltered_one if {
	combined := together({{"id": "a", "mask": {"x"}}, {"id": "b", "filter": eu}})
	combined.mask == ["x"]
	combined.filter == null
}

test_masks_meet_by_containment if {
	together({{"id": "a", "mask": {"address"}}, {"id": "b", "mask": {"address.city"}}}).mask == ["address.city"]
	together({{"id": "a", "mask": {"address.city"}}, {"id": "b", "mask": {"address"}}}).mask == ["address.city"]
	together({{"id": "a", "mask": {"address"}}, {"id": "b", "mask": {"addresses"}}}).mask == []
}

last4 := {"field": "card", "as": "last4"}

hundreds := {"field": "pay", "as": "bucket:100"}

test_what_one_grant_leaves_of_a_field_is_left if {
	together({{"id": "a", "mask": {last4}}, {"id": "b", "mask": {"card"}}}).mask == [last4]
	together({{"id": "a", "mask": {last4, "x"}}, {"id": "b", "mask": {last4, hundreds}}}).mask == [last4]
	together({{"id": "a", "mask": {{"field": "card", "as": "absent"}}}}).mask == ["card"]
	together({{"id": "a", "mask": {last4}}, {"id": "b"}}).mask == []
}

test_of_what_two_grants_leave_differently_nothing_is_left if {
	together({{"id": "a", "mask": {last4}}, {"id": "b", "mask": {{"field": "card", "as": "bucket:10"}}}}).mask == ["card"]
	together({{"id": "a", "mask": {hundreds}}, {"id": "b", "mask": {{"field": "pay", "as": "bucket:10"}}}}).mask == ["pay"]
}

test_a_grant_masks_each_field_in_the_tightest_of_its_own_forms if {
	together({{"id": "a", "mask": [last4, "card"]}}).mask == ["card"]
	together({{"id": "a", "mask": [last4, {"field": "card", "as": "bucket:10"}]}}).mask == ["card"]
}

test_inside_a_masked_field_nothing_is_left if {
	inner := {"field": "card.number", "as": "last4"}
	together({{"id": "a", "mask": {"card"}}, {"id": "b", "mask": {inner}}}).mask == [inner]
	together({{"id": "a", "mask": {"card", inner}}, {"id": "b", "mask": {"card.number"}}}).mask == ["card.number"]
	together({{"id": "a", "mask": {last4}}, {"id": "b", "mask": {"card.number"}}}).mask == ["card.number"]
}

test_forms_of_different_rows_are_not_mixed if {
	together({{"id": "a", "filter": eu, "mask": {last4}}, {"id": "b", "filter": us, "mask": {"card"}}}).mask == ["card"]
	together({{"id": "a", "filter": eu, "mask": {last4}}, {"id": "b", "filter": us, "mask": {last4}}}).mask == [last4]
	together({{"id": "a", "filter": eu, "mask": {last4}}, {"id": "b", "filter": us}}).mask == [last4]
}

test_numbers_take_the_largest if {
	combined := together({{"id": "a", "max_documents": 5, "max_time_ms": 9}, {"id": "b", "max_documents": 50, "max_time_ms": 7}})
	combined.max_documents == 50
	combined.max_time_ms == 9
}

test_further_numbers_and_conditions_are_there_only_where_every_grant_has_them if {
	first := {"id": "a", "max_affected": 5, "max_bytes": 900, "no_collection_scan": true}
	second := {"id": "b", "max_affected": 7, "max_bytes": 800, "no_collection_scan": true}
	together({first, second}) == object.union(
		verdicts.free,
		{"max_affected": 7, "max_bytes": 900, "no_collection_scan": true},
	)
	together({first, {"id": "c"}}) == verdicts.free
	together({first, {"id": "c", "max_bytes": 100}}) == object.union(verdicts.free, {"max_bytes": 900})
}

test_the_platforms_further_numbers_and_conditions_hold_whatever_is_granted if {
	ceiling := [{"id": "o", "max_affected": 10}, {"id": "p", "max_bytes": 20, "no_collection_scan": true}]
	expected := object.union(verdicts.free, {"max_affected": 10, "max_bytes": 20, "no_collection_scan": true})
	combination.combined({{"id": "a"}}, ceiling) == expected
	combination.combined({{"id": "a", "max_affected": 11, "max_bytes": 21}}, ceiling) == expected
	combination.combined({{"id": "a", "max_affected": 9}}, ceiling).max_affected == 9
}

test_a_grant_without_a_number_has_no_limit if {
	together({{"id": "a", "max_documents": 5}, {"id": "b"}}).max_documents == null
}

test_a_filtered_grant_lifts_no_limit_of_an_unfiltered_one if {
	together({{"id": "a", "max_documents": 5}, {"id": "b", "filter": eu}}).max_documents == 5
}

test_the_platforms_ceiling_is_above_them if {
	ceiling := [{"id": "o", "max_documents": 10}, {"id": "p", "max_documents": 20}]
	combination.combined({{"id": "a", "max_documents": 50}}, ceiling).max_documents == 10
	combination.combined({{"id": "a", "max_documents": 5}}, ceiling).max_documents == 5
	combination.combined({{"id": "a"}}, ceiling).max_documents == 10
}

test_the_platforms_filters_are_anded if {
	live := {"live": true}
	combination.combined({{"id": "a"}}, [{"id": "o", "filter": live}]).filter == live
	combination.combined({{"id": "a", "filter": eu}}, [{"id": "o", "filter": live}]).filter == {"$and": [live, eu]}
	combination.combined({{"id": "a", "filter": eu}, {"id": "b", "filter": us}}, [{"id": "o", "filter": live}]).filter == {"$and": [
		{"$or": [eu, us]},
		live,
	]}
}

test_a_list_is_cut_down_if_every_grant_says_so_or_the_platform_does if {
	reachable := {"id": "a", "names": "reachable"}
	together({reachable}).names == "reachable"
	together({reachable, {"id": "b", "names": "reachable", "max_documents": 5}}).names == "reachable"
	not together({reachable, {"id": "b"}}).names
	not together({{"id": "b"}}).names
	combination.combined({{"id": "b"}}, [{"id": "o", "names": "reachable"}]).names == "reachable"
	not combination.combined({{"id": "b"}}, [{"id": "o", "max_documents": 5}]).names
}

test_a_filtered_grant_of_all_names_does_not_lift_it if {
	together({{"id": "a", "names": "reachable"}, {"id": "b", "filter": eu}}).names == "reachable"
}

test_the_platforms_masks_are_added if {
	combination.combined({{"id": "a", "mask": {"x"}}, {"id": "b"}}, [{"id": "o", "mask": ["y"]}]).mask == ["y"]
	combination.combined({{"id": "a", "mask": {"x"}}}, [{"id": "o", "mask": ["y"]}]).mask == ["x", "y"]
	combination.combined({{"id": "a", "mask": {last4}}}, [{"id": "o", "mask": ["card"]}]).mask == ["card"]
	combination.combined({{"id": "a", "mask": {"card"}}}, [{"id": "o", "mask": [last4]}]).mask == ["card"]
	combination.combined({{"id": "a", "mask": {last4}}}, [{"id": "o", "mask": [last4]}]).mask == [last4]
	combination.combined({{"id": "a"}}, [{"id": "o", "mask": [last4, hundreds]}]).mask == [hundreds, last4]
}

test_approvals_are_asked_if_the_platform_asks_or_every_grant_does if {
	combination.approvals({{"id": "a"}}, []) == set()
	combination.approvals({{"id": "a", "approval": "x"}, {"id": "b"}}, []) == set()
	combination.approvals({{"id": "a", "approval": "x"}, {"id": "b", "approval": "y"}}, []) == {"x", "y"}
	combination.approvals({{"id": "a"}}, [{"id": "o", "approval": "z"}]) == {"z"}
}

test_what_a_grant_opens_after_an_approval_is_not_opened_by_another if {
	approved := {"id": "b", "approval": "second_person", "max_documents": 1000}
	together({{"id": "a", "mask": {"x"}, "max_documents": 10}, approved}) == {
		"filter": null,
		"mask": ["x"],
		"max_documents": 10,
		"max_time_ms": null,
	}
	together({{"id": "a", "filter": eu}, approved}).filter == eu
	together({{"id": "a", "filter": eu}, object.union(approved, {"filter": us})}).filter == eu
}

test_grants_that_all_ask_for_an_approval_are_a_union if {
	asking := {{"id": "a", "mask": {"x"}, "approval": "confirm"}, {"id": "b", "approval": "second_person"}}
	together(asking).mask == []
	combination.approvals(asking, []) == {"confirm", "second_person"}
}

test_a_grant_that_asks_for_nothing_lifts_a_mask_beside_one_that_asks if {
	together({{"id": "a", "mask": {"x"}, "approval": "confirm"}, {"id": "b"}}).mask == []
}

test_no_grants_ask_for_nothing if {
	not combination.unscanned(set(), [])
	combination.names(set(), []) == {}
}
