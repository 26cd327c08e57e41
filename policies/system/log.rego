# METADATA
# title: What OPA's own decision log leaves out
# description: >-
#   The sidecar's audit is the evidence; where OPA's decision log is switched on as well, claims and row filters (which
#   may carry personal data) stay out of it.
package system.log

# METADATA
# title: Claims of the person and the values of filters are erased
mask contains pointer if some pointer in ["/input/subject/claims", "/result/accesses"]
