# METADATA
# title: What OPA's own decision log leaves out
# description: >-
#   The sidecar's audit is the evidence; where OPA's decision log is switched on as well, claims, row filters and arguments
#   (which may carry personal data) stay out of it.
package system.log

# METADATA
# title: Claims of the person, the values of filters and the arguments of tools are erased
mask contains pointer if some pointer in ["/input/subject/claims", "/input/command/arguments", "/result/accesses"]
