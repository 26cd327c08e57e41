# METADATA
# title: Tests of system.log
package system.log_test

import data.system.log

test_claims_and_filters_are_erased_and_nothing_else if {
	log.mask == {"/input/subject/claims", "/input/command/arguments", "/result/accesses"}
}
