# METADATA
# title: Grants of one access, taken together
# description: >-
#   A union, as people expect of permissions. If one of the grants asks for no approval, those that ask for one are left out of
#   account: what they open was to be approved. Grants without a filter see all rows; if there is one, the filtered ones add no
#   rows and are left out of account. Otherwise filters are ORed. A field is masked if every grant that opens the same rows
#   masks it; where grants open different rows with different masks the union has no form, and everything that one of them
#   masks is masked. Where two leave different parts of a field, nothing is left of it. Numbers take the largest; a grant
#   without the number has no limit. The platform's obligations are ANDed.
package mcp.platform.combination

# METADATA
# title: The grants that count
# scope: document
contributing(grants) := open if {
	open := {grant | some grant in at_once(grants); not grant.filter}
	count(open) > 0
}

contributing(grants) := at_once(grants) if {
	count({grant | some grant in at_once(grants); not grant.filter}) == 0
}

# METADATA
# title: The grants that ask for no approval; all of them, if each asks for one
# scope: document
at_once(grants) := grants if asked_by_all(grants) != set()

at_once(grants) := {grant | some grant in grants; not grant.approval} if asked_by_all(grants) == set()

# METADATA
# title: The different filters of the grants that count; none where one of them sees all rows
filters(grants) := {grant.filter | some grant in grants}

# METADATA
# title: The masks of the grants with this filter, each by path; null stands for no filter
masks_of(grants, filter) := {mask |
	some grant in grants
	object.get(grant, "filter", null) == filter
	mask := tightest_forms(object.get(grant, "mask", []))
}

# METADATA
# title: The path of a masked field
# scope: document
path_of(entry) := entry if is_string(entry)

path_of(entry) := entry.field

# METADATA
# title: What is left of a masked field; nothing where only its path is given
# scope: document
form_of(entry) := "absent" if is_string(entry)

form_of(entry) := entry["as"]

# METADATA
# title: Masked fields that must all hold, by path
# description: Of different forms for one field the tighter is that it is absent, whichever they are.
tightest_forms(entries) := {path: form |
	some entry in entries
	path := path_of(entry)
	form := only({form_of(other) | some other in entries; path_of(other) == path})
}

# METADATA
# title: One of several forms, where there is one
# scope: document
only(forms) := form if {
	count(forms) == 1
	some form in forms
} else := "absent"

# METADATA
# title: What a mask makes of a field that it names, or of which it names something around it
# description: Inside a field that is masked in any form there is nothing to be seen.
# scope: document
shown(mask, path) := mask[path] if {
	not hidden(mask, path)
}

shown(mask, path) := "absent" if hidden(mask, path)

# METADATA
# title: A mask names something around a field
hidden(mask, path) if {
	some outer, _ in mask
	startswith(path, concat("", [outer, "."]))
}

# METADATA
# title: What all of the masks hide, by path
# description: >-
#   By containment, not by name: what {"address"} and {"address.city"} both hide is address.city. What one of them leaves of a
#   field is left; where they leave different things, nothing is.
meet(masks) := {path: only(left(forms)) |
	some mask in masks
	some path, _ in mask
	count([other | some other in masks; not shown(other, path)]) == 0
	forms := {shown(other, path) | some other in masks}
}

# METADATA
# title: The forms that leave something; if there are none, the one that leaves nothing
# scope: document
left(forms) := forms - {"absent"} if count(forms - {"absent"}) > 0

left(forms) := {"absent"} if count(forms - {"absent"}) == 0

# METADATA
# title: The masked fields of the union of the grants, as policies write them
mask(grants) := {as_entry(path, form) |
	some filter in {object.get(grant, "filter", null) | some grant in grants}
	some path, form in meet(masks_of(grants, filter))
}

# METADATA
# title: A masked field as policies write it
# scope: document
as_entry(path, "absent") := path

as_entry(path, form) := {"field": path, "as": form} if form != "absent"

# METADATA
# title: The largest number that a grant gives; undefined where one gives none
largest(grants, part) := max({grant[part] | some grant in grants}) if {
	count(grants) > 0
	count([grant | some grant in grants; not grant[part]]) == 0
}

# METADATA
# title: Several filters of which one must hold; the same filter twice is one
# scope: document
any_filter(filters) := null if count(filters) == 0

any_filter(filters) := filter if {
	count(filters) == 1
	some filter in filters
}

any_filter(filters) := {"$or": sort(filters)} if count(filters) > 1

# METADATA
# title: Several filters that must all hold
# scope: document
all_filters(filters) := null if count(filters) == 0

all_filters(filters) := filter if {
	count(filters) == 1
	some filter in filters
}

all_filters(filters) := {"$and": sort(filters)} if count(filters) > 1

# METADATA
# title: The smallest number; null where there is none
# scope: document
tightest(numbers) := null if count(numbers) == 0

tightest(numbers) := min(numbers) if count(numbers) > 0

# METADATA
# title: A number under the platform's ceilings
bounded(grants, obligations, part) := tightest({largest(grants, part)} | {o[part] | some o in obligations}) if {
	largest(grants, part)
} else := tightest({o[part] | some o in obligations})

# METADATA
# title: The filter of the grants under the platform's forced filters
filtered(grants, obligations) := all_filters({o.filter | some o in obligations} | ({any_filter(filters(grants))} - {null}))

# METADATA
# title: The obligations that an allow of this access carries
combined(grants, obligations) := object.union_n([names(counted, obligations), further(counted, obligations), {
	"filter": filtered(counted, obligations),
	"mask": sort({entry |
		some path, form in tightest_forms(mask(counted) | {entry | some o in obligations; some entry in object.get(o, "mask", [])})
		entry := as_entry(path, form)
	}),
	"max_documents": bounded(counted, obligations, "max_documents"),
	"max_time_ms": bounded(counted, obligations, "max_time_ms"),
}]) if {
	counted := contributing(grants)
}

# METADATA
# title: The numbers and conditions that are a part of the answer only where there are some
further(grants, obligations) := object.union(
	{part: number |
		some part in ["max_affected", "max_bytes"]
		number := bounded(grants, obligations, part)
		number != null
	},
	{part: true | some part in ["no_collection_scan"]; unscanned(grants, obligations)},
)

# METADATA
# title: Whether no collection may be scanned
# description: If the platform says so, or if every grant that counts does.
# scope: document
unscanned(_, obligations) if {
	some obligation in obligations
	obligation.no_collection_scan
}

unscanned(grants, _) if {
	count(grants) > 0
	count([grant | some grant in grants; not grant.no_collection_scan]) == 0
}

# METADATA
# title: Whether a list is cut down to the names that the caller's grants reach
# description: If the platform says so, or if every grant that counts does. A part of the answer only where it is so.
# scope: document
names(grants, obligations) := {"names": "reachable"} if {
	some obligation in obligations
	obligation.names
} else := {"names": "reachable"} if {
	count(grants) > 0
	count([grant | some grant in grants; not grant.names]) == 0
} else := {}

# METADATA
# title: The approvals asked for
# description: All that the platform asks for, and, if every grant asks for one, all that the grants ask for.
approvals(grants, obligations) := {o.approval | some o in obligations} | asked_by_all(grants)

# METADATA
# title: The approvals that the grants ask for; none where one of them asks for none
# scope: document
asked_by_all(grants) := {grant.approval | some grant in grants} if {
	count([grant | some grant in grants; not grant.approval]) == 0
} else := set()
