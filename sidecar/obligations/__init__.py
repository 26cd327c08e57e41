"""What must be done for an allow to stand: planned before forwarding, discharged on commands and results."""

from sidecar.obligations.approvals import ApprovalKind
from sidecar.obligations.comment import with_comment
from sidecar.obligations.finds import as_find
from sidecar.obligations.limits import GIVING_DOCUMENTS, most_bytes, time_ms
from sidecar.obligations.masks import is_form, is_maskable
from sidecar.obligations.plan import Plan, plan, possible, rows_of, without_rows
from sidecar.obligations.results import failed_list, read_names, withheld

__all__ = [
    "GIVING_DOCUMENTS",
    "ApprovalKind",
    "Plan",
    "as_find",
    "failed_list",
    "is_form",
    "is_maskable",
    "most_bytes",
    "plan",
    "possible",
    "read_names",
    "rows_of",
    "time_ms",
    "with_comment",
    "withheld",
    "without_rows",
]
