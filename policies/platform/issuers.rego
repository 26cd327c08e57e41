# METADATA
# title: For whose callers an entry of the platform's data counts
# description: >-
#   Groups, roles, scopes and agents are names that an issuer gives; another issuer can give the same names to others. Where the
#   sidecar trusts one issuer, no entry has to name it. Where it trusts several, every caller says so, and an entry counts
#   for the issuers that it lists in `issuers`: exactly, or all of them by `*`. What lists none counts for none.
# schemas:
#   - input: schema.input
package mcp.platform.issuers

# METADATA
# title: More issuers than the caller's are trusted
several if input.subject.several_issuers == true

# METADATA
# title: The list covers the caller's issuer; null stands for no list
# scope: document
covered(null) if not several

covered(listed) if input.subject.issuer in listed

covered(listed) if "*" in listed

# METADATA
# title: The entry counts for the caller
counts(entry) if covered(object.get(entry, "issuers", null))
