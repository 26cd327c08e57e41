# METADATA
# title: What lies behind a view, and whether the view alone is enough
# description: >-
#   Two things say what a view is made of: the sidecar, where it may list the views of the database (accesses with `via_view`),
#   and `deployments.<deployment>.views` in the platform's data. Both count: what is declared and was not listed is asked about
#   as well (`implied`). A caller who is granted the view must be granted its sources too, unless the platform says of that
#   view, in that deployment, that it is enough `alone`. A team can never say so: a view shows what others own.
# schemas:
#   - input: schema.input
package mcp.platform.views

import data.mcp.platform.combination
import data.mcp.platform.input_check
import data.mcp.platform.routing
import data.mcp.platform.touched

# METADATA
# title: The kinds of access that go through a view to its sources
# description: The same as in sidecar/commands/views.py. To drop a view, or to take its name, touches no source.
passing := {"read", "metadata", "export", "insert", "update", "delete", "index"}

# METADATA
# title: The kinds of access to a source for which a view can be enough
# description: What gives out content as the view shapes it; neither facts about the source nor a write to it.
showing := {"read", "export"}

# METADATA
# title: The views that are declared in the deployment of the call
declarations := data.mcp.platform.deployments[routing.deployment].views

# METADATA
# title: The declared views in the databases of the call, by database and name
# description: A shortcut; there are none in most calls, and then there is nothing to look for.
nearby := {database: declarations[database] | some database in touched.databases}

# METADATA
# title: A declaration that is of the form that the rules were written for
sound(declared) if {
	input_check.exactly(declared, {"sources", "alone"})
	is_boolean(declared.alone)
	is_array(declared.sources)
	count(declared.sources) > 0
	count([source | some source in declared.sources; not sound_source(source)]) == 0
}

# METADATA
# title: A source is one collection, or another view
sound_source(source) if {
	input_check.exactly(source, {"database", "collection"})
	input_check.named(source.database)
	input_check.named(source.collection)
}

# METADATA
# title: The accesses for which the platform holds the view that they go through to be enough
alone contains index if {
	some index, access in input.accesses
	declared := declarations[access.via_view.database][access.via_view.collection]
	access.kind in showing
	sound(declared)
	declared.alone == true
}

# METADATA
# title: What each declared view is made of, where the view alone is not enough
# description: A declaration that is not sound is no edge; a call that reaches it is refused (`reasons`).
edges[[database, name]] := {[source.database, source.collection] | some source in declared.sources} if {
	some database, collections in declarations
	some name, declared in collections
	sound(declared)
	declared.alone == false
}

# METADATA
# title: Everything that a declared view reads, through other declared views too
behind(view) := {source | some reached in graph.reachable(edges, {view}); some source in edges[reached]} - {view}

# METADATA
# title: The view that the caller named
# scope: document
named(access) := access.via_view

named(access) := {"database": access.database, "collection": access.collection} if not access.via_view

# METADATA
# title: The accesses that the question leaves out, each with the index of the access that it comes of
implied := [{"of": index, "access": source_access} |
	some database, declared in nearby
	some index, access in input.accesses
	access.database == database
	declared[access.collection]
	access.kind in passing
	some source in behind([access.database, access.collection])
	source_access := {
		"kind": access.kind,
		"database": source[0],
		"collection": source[1],
		"via": access.via,
		"via_view": named(access),
	}
	not listed(source_access)
]

# METADATA
# title: The sidecar found the source by itself
listed(wanted) if {
	some access in input.accesses
	object.remove(access, ["via"]) == object.remove(wanted, ["via"])
}

# METADATA
# title: The question with everything that it implies
asked := object.union(input, {"accesses": array.concat(input.accesses, [entry.access | some entry in implied])})

# METADATA
# title: The index of the access that the caller caused
# scope: document
home(index) := index if index < count(input.accesses)

home(index) := implied[index - count(input.accesses)].of if index >= count(input.accesses)

# METADATA
# title: The answer to the question with everything, as the answer to the question that was asked
# description: >-
#   One entry per access that was asked about. Numbers and approvals of an implied access are put on the view; a filter, a
#   mask or a choice of names of a source means nothing on the documents of a view, so there the source counts as not granted.
folded(answer) := object.union(answer, {
	"allow": count(reasons) == 0,
	"reasons": sort(reasons),
	"accesses": [bounded(answer, index) | some index, _ in input.accesses],
	"approval": agreed(answer.approval, reasons),
}) if {
	reasons := {moved | some reason in answer.reasons; moved := object.union(reason, {"access": origin(reason.access)})} | shaped(answer)
}

# METADATA
# title: The access that a reason is about; null stays null
# scope: document
origin(null) := null

origin(index) := home(index) if is_number(index)

# METADATA
# title: The sources that are granted under a filter or a mask only
shaped(answer) := {{"code": "not_granted", "source": entry.owner, "access": home(index)} |
	some index, entry in answer.accesses
	index >= count(input.accesses)
	(count({entry.filter} - {null}) + count(entry.mask)) + count(object.filter(entry, ["names"])) > 0
}

# METADATA
# title: The entry of an access, under the numbers of what it implies
bounded(answer, index) := object.union_n([
	answer.accesses[index],
	{part: combination.tightest({entry[part] | some entry in entries} - {null}) | some part in ["max_documents", "max_time_ms"]},
	{part: min({entry[part] | some entry in entries}) | some part in ["max_affected", "max_bytes"]; some entry in entries; entry[part]},
	{part: true | some part in ["no_collection_scan"]; some entry in entries; entry[part]},
]) if {
	entries := [entry | some other, entry in answer.accesses; home(other) == index]
}

# METADATA
# title: The approvals, each on the access that the caller caused; null where there is a reason against the call
# scope: document
agreed(null, _) := null

agreed(_, reasons) := null if count(reasons) > 0

agreed(approval, reasons) := {"accesses": asking} if {
	is_object(approval)
	count(reasons) == 0
	asking := [{"access": index, "codes": sort(codes)} |
		some index, _ in input.accesses
		codes := {code | some entry in approval.accesses; home(entry.access) == index; some code in entry.codes}
		count(codes) > 0
	]
}

# METADATA
# title: The declaration of a view that the call goes through is not usable
# scope: rule
# custom:
#   code: platform_data_invalid
reasons contains {"code": "platform_data_invalid", "source": "platform", "access": index} if {
	some database, views in nearby
	some index, access in input.accesses
	access.database == database
	declared := views[access.collection]
	not sound(declared)
}
