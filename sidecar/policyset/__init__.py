"""Whether a policy set may serve: it is read, checked, and made into bundles, without an OPA that answers questions."""

from sidecar.policyset import bundle_writer
from sidecar.policyset.bundle_reader import PLATFORM, Archives, archives_in, read_archives
from sidecar.policyset.checks import ApprovedSet, SetChecker, refuse
from sidecar.policyset.compile_errors import complaints
from sidecar.policyset.containment import MAX_MODULE_BYTES, MAX_TEAM_FILES, MAX_TEAM_RULES_BYTES
from sidecar.policyset.data_lines import json_span
from sidecar.policyset.data_lines import where as data_place
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import CAPABILITIES, MANIFEST, SCHEMAS, TEAMS, PolicySet, store
from sidecar.policyset.folder_changes import FolderWatch, Snapshot, snapshot
from sidecar.policyset.manifest import (
    TRUSTED,
    NotOneReading,
    decode_strictly,
    is_team,
    listed,
    listing,
    manifest_roots,
    team_fault,
    trusted_fault,
)
from sidecar.policyset.mentions import OBLIGATIONS
from sidecar.policyset.module_lint import ModuleReport, lint_module, uncalled
from sidecar.policyset.opa_command import OpaCommand, installed
from sidecar.policyset.question_reads import TIME, QuestionReads
from sidecar.policyset.read_list import EVERYTHING, ReadList, written
from sidecar.policyset.rule_places import places_of_grant, places_of_reason
from sidecar.policyset.syntax_tree import RegoPath
from sidecar.policyset.workshop import CHECK_MEMORY_BYTES, examine_set, workshop

__all__ = [
    "CAPABILITIES",
    "CHECK_MEMORY_BYTES",
    "EVERYTHING",
    "MANIFEST",
    "MAX_MODULE_BYTES",
    "MAX_TEAM_FILES",
    "MAX_TEAM_RULES_BYTES",
    "OBLIGATIONS",
    "PLATFORM",
    "SCHEMAS",
    "TEAMS",
    "TIME",
    "TRUSTED",
    "ApprovedSet",
    "Archives",
    "FolderWatch",
    "ModuleReport",
    "NotOneReading",
    "OpaCommand",
    "PolicySet",
    "QuestionReads",
    "ReadList",
    "RegoPath",
    "Rule",
    "SetChecker",
    "Severity",
    "Snapshot",
    "Violation",
    "archives_in",
    "bundle_writer",
    "complaints",
    "data_place",
    "decode_strictly",
    "examine_set",
    "installed",
    "is_team",
    "json_span",
    "lint_module",
    "listed",
    "listing",
    "manifest_roots",
    "places_of_grant",
    "places_of_reason",
    "read_archives",
    "refuse",
    "snapshot",
    "store",
    "team_fault",
    "trusted_fault",
    "uncalled",
    "workshop",
    "written",
]
