# METADATA
# title: Tests of the loading team's policy
# description: Hours, collections and what is frozen are set here, so that a change of the team's data is no failure of its tests.
package mcp.teams.loading.policy_test

import data.mcp.teams.loading

# METADATA
# title: The team's data as these tests have it
team := {
	"collections": ["orders"],
	"hours": {
		"days": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"],
		"from": "00:00",
		"to": "24:00",
		"timezone": "Europe/Berlin",
	},
	"frozen": ["returns"],
}

# METADATA
# title: A question to the team
asked(kind, collection, moment) := {
	"subject": {"groups": ["loaders"]},
	"actor": {"id": "nightly-loader"},
	"access": {"kind": kind, "database": "staging", "collection": collection},
	"context": {"time_ns": time.parse_rfc3339_ns(moment)},
}

wednesday := "2024-01-10T12:00:00+01:00"

saturday := "2024-01-13T12:00:00+01:00"

insert := asked("insert", "orders", wednesday)

read := asked("read", "orders", saturday)

# METADATA
# title: The question with another value at one place
but(question, path, value) := json.patch(question, [{"op": "replace", "path": path, "value": value}])

# METADATA
# title: The identifiers of the grants that match
ids(question) := {grant.id | some grant in loading.grant with input as question with data.mcp.grants.loading as team}

# METADATA
# title: What is denied
denied(question, data_of_team) := codes if {
	codes := loading.deny with input as question with data.mcp.grants.loading as data_of_team
}

test_the_nightly_loader_inserts_on_weekdays if {
	ids(insert) == {"loader-inserts-on-weekdays"}
	ids(asked("insert", "orders", "2024-01-08T00:00:00+01:00")) == {"loader-inserts-on-weekdays"}
	ids(asked("insert", "orders", "2024-01-12T23:59:00+01:00")) == {"loader-inserts-on-weekdays"}
}

test_it_does_not_on_saturday_and_sunday if {
	ids(asked("insert", "orders", "2024-01-13T00:00:00+01:00")) == set()
	ids(asked("insert", "orders", saturday)) == set()
	ids(asked("insert", "orders", "2024-01-14T23:59:00+01:00")) == set()
}

# In July Berlin is two hours ahead of UTC, so its Saturday begins on Friday at 22:00 in UTC.
test_the_day_is_that_of_the_time_zone if {
	ids(asked("insert", "orders", "2024-07-12T21:59:00Z")) == {"loader-inserts-on-weekdays"}
	ids(asked("insert", "orders", "2024-07-12T22:00:00Z")) == set()
	ids(asked("insert", "orders", "2024-07-14T22:00:00Z")) == {"loader-inserts-on-weekdays"}
}

test_it_reads_what_it_loaded_on_every_day if {
	ids(read) == {"loader-reads-what-it-loaded"}
	ids(asked("read", "orders", wednesday)) == {"loader-reads-what-it-loaded"}
}

test_it_does_nothing_else if {
	every kind in ["update", "delete", "create", "drop", "index", "metadata", "export"] {
		ids(asked(kind, "orders", wednesday)) == set()
	}
}

test_neither_the_agent_nor_the_person_is_enough if {
	every question in [insert, read] {
		ids(but(question, "/actor/id", "claude-desktop")) == set()
		ids(but(question, "/actor/id", "nightly-loader-2")) == set()
		ids(but(question, "/subject/groups", ["analysts"])) == set()
		ids(but(question, "/subject/groups", [])) == set()
	}
}

test_it_stays_in_its_own_collections if {
	every question in [insert, read] {
		every collection in ["", "customers", "orders2", "Orders"] {
			ids(but(question, "/access/collection", collection)) == set()
		}
		ids(but(question, "/access/database", "sales")) == set()
	}
}

test_a_frozen_collection_is_denied if {
	denied(asked("insert", "returns", wednesday), team) == {"frozen"}
	denied(asked("read", "returns", wednesday), team) == {"frozen"}
	denied(insert, team) == set()
	denied(insert, but(team, "/frozen", ["*"])) == {"frozen"}
	denied(insert, but(team, "/frozen", [])) == set()
}

test_what_is_frozen_has_to_be_known if {
	denied(insert, {}) == {"frozen-unknown"}
	denied(insert, but(team, "/frozen", "orders")) == {"frozen-unknown"}
}

test_without_its_data_the_team_grants_nothing if {
	every question in [insert, read] {
		grants := loading.grant with input as question with data.mcp.grants.loading as {}
		grants == set()
	}
	timeless := object.remove(team, ["hours"])
	grants := loading.grant with input as insert with data.mcp.grants.loading as timeless
	grants == set()
}
