# METADATA
# title: Tests of mcp.platform.budgets
package mcp.platform.budgets_test

import data.mcp.platform.configuration
import data.mcp.platform.fixture_test as fixture

# METADATA
# title: A limit on everybody's calls, with some parts replaced
limit(changes) := object.union(
	{
		"id": "minute",
		"per": ["subject"],
		"groups": ["*"],
		"agents": ["*"],
		"tools": ["*"],
		"teams": ["*"],
		"window_s": 60,
		"calls": 10,
	},
	changes,
)

# METADATA
# title: The same limit as the sidecar is told it
told(changes) := object.union(
	{"id": "minute", "per": ["subject"], "team": "", "window_s": 60, "calls": 10, "documents": null, "bytes": null},
	changes,
)

# METADATA
# title: The limits that an allow says, with this table
said(asked, limits) := object.get(decision, "limits", []) if {
	decision := fixture.decide(asked, {"limits": limits}, fixture.teams)
	decision.allow == true
}

test_a_limit_is_said_with_an_allow if {
	said(fixture.question, [limit({})]) == [told({})]
	said(fixture.question, [limit({"id": "day", "window_s": 86400, "documents": 5, "bytes": 7})]) == [told({
		"id": "day",
		"window_s": 86400,
		"documents": 5,
		"bytes": 7,
	})]
}

test_nothing_is_said_where_there_is_none if {
	not "limits" in object.keys(fixture.decide(fixture.question, {"limits": []}, fixture.teams))
	not "limits" in object.keys(fixture.decide(fixture.question, {"limits": [limit({"groups": ["others"]})]}, fixture.teams))
}

test_no_limit_is_said_with_a_deny if {
	denied := fixture.decide(fixture.question, {"limits": [limit({})], "refused_kinds": ["read"]}, fixture.teams)
	denied.allow == false
	not "limits" in object.keys(denied)
}

test_a_limit_fits_by_group_agent_tool_and_team if {
	every part, near in {
		"groups": ["staff", "clerks"],
		"agents": ["de*", "de"],
		"tools": ["find", "Find"],
		"teams": ["red", "re"],
	} {
		[fits, misses] := near
		count(said(fixture.question, [limit({part: [fits]})])) == 1
		said(fixture.question, [limit({part: [misses]})]) == []
	}
}

test_limits_keep_the_order_of_the_table if {
	limits := [limit({"id": "b"}), limit({"id": "a"})]
	[one.id | some one in said(fixture.question, limits)] == ["b", "a"]
}

both := fixture.about([fixture.read("shop", "orders"), fixture.read("blue", "orders")])

test_a_limit_by_team_is_said_for_each_team_of_the_call if {
	by_team := limit({"per": ["subject", "team"]})
	said(both, [by_team]) == [told({"per": by_team.per, "team": "blue"}), told({"per": by_team.per, "team": "red"})]
	said(both, [object.union(by_team, {"teams": ["blue"]})]) == [told({"per": by_team.per, "team": "blue"})]
	said(fixture.question, [object.union(by_team, {"teams": ["blue"]})]) == []
}

test_a_limit_that_does_not_count_by_team_is_said_once if {
	said(both, [limit({"teams": ["red", "blue"]})]) == [told({})]
	said(both, [limit({"teams": ["blue"]})]) == [told({})]
}

test_the_team_behind_a_declared_view_is_touched_too if {
	declared := json.patch(fixture.tables.deployments, [{"op": "add", "path": "/east/views", "value": {"shop": {"both": {
		"sources": [{"database": "blue", "collection": "orders"}],
		"alone": false,
	}}}}])
	decision := fixture.decide(
		fixture.about([fixture.read("shop", "both")]),
		{"deployments": declared, "limits": [limit({"per": ["team"]})]},
		fixture.teams,
	)
	decision.allow == true
	[one.team | some one in decision.limits] == ["blue", "red"]
}

test_a_team_has_no_part_in_it if {
	generous := {"red": {"grant": {{"id": "all"}}, "deny": set(), "limits": []}}
	decision := fixture.decide(fixture.question, {"limits": [limit({})]}, generous)
	decision.limits == [told({})]
}

# METADATA
# title: One name more than the table may have entries
letters := split("abcdefghijklmnopq", "")

test_a_limit_that_cannot_be_read_closes_everything if {
	every limits in [
		{"minute": limit({})},
		"x",
		[1],
		[object.remove(limit({}), ["calls"])],
		[object.remove(limit({}), ["per"])],
		[limit({"note": "x"})],
		[limit({"id": ""})],
		[limit({"groups": []})],
		[limit({"agents": [1]})],
		[limit({"tools": "*"})],
		[limit({"teams": []})],
		[limit({"per": "subject"})],
		[limit({"per": ["group"]})],
		[limit({"window_s": 0})],
		[limit({"window_s": 1.5})],
		[limit({"window_s": 86401})],
		[limit({"calls": 0})],
		[limit({"documents": "10"})],
		[limit({"bytes": null})],
		[limit({}), limit({})],
		[limit({"id": letter}) | some letter in letters],
	] {
		decision := fixture.decide(fixture.question, {"limits": limits}, fixture.teams)
		fixture.refused(decision, [fixture.reason("platform_data_invalid", null)])
	}
}

test_the_widest_limits_of_the_right_form_are_data if {
	most := [limit({"id": letter, "per": []}) | some letter in array.slice(letters, 0, configuration.most_limits)]
	count(said(fixture.question, most)) == configuration.most_limits
	count(said(fixture.question, [limit({"window_s": 86400, "calls": 1})])) == 1
}
