"""Which tests hold which row of docs/reference/mcp-requirements.md, for both eras.

Every row of the tables V, M, L, S and G is here exactly once: with its tests, as not served with the reason, or as a
hole with what is missing. ``test_requirements`` holds the table to the page and to the tests that there are;
``tools/requirement_reference.py`` makes docs/reference/mcp-tests.md of it.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Held:
    """By these tests, as pytest names them below ``tests/``."""

    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotServed:
    """The sidecar has nothing that the row is about; the tests show that it is refused or absent."""

    reason: str
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hole:
    """No test holds it yet, or not all of it."""

    missing: str
    tests: tuple[str, ...] = ()


Row = Held | NotServed | Hole


def held(*tests: str) -> Held:
    return Held(tests)


REVISION = "mcp/test_revision.py"
MIRRORED = "mcp/test_mirrored.py"
RESULTS = "mcp/test_stateless_results.py"
STATELESS = "attacks/test_stateless_wire.py"
WIRE = "attacks/test_wire.py"
LISTEN = "enforcement/test_without_sessions.py"
STREAMS = "enforcement/test_streams.py"
ASKED = "enforcement/test_confirmations.py"
ASKED_ONCE = "enforcement/test_confirmations_stateless.py"
QUESTIONS = "integration/test_server_questions.py"
ASKING_SERVER = "upstream/test_server_questions.py"
HTTP = "edge/test_http_endpoint.py"
ADMISSION = "edge/test_admission.py"
NEGOTIATES = "edge/test_sdk_negotiates.py"
DECODING = "mcp/test_jsonrpc_decoding.py"
METHODS = "mcp/test_methods.py"
PARAMS = "mcp/test_tools_params.py"
OWNERSHIP = "mcp/test_session_ownership.py"
CHILD = "upstream/test_stdio_faults.py"
CHILD_STATELESS = "upstream/test_stdio_stateless.py"
TO_STATELESS = "upstream/test_http_stateless.py"
TO_HTTP = "upstream/test_http_upstream.py"
CALLS = "integration/test_tool_calls.py"

NOTHING_CROSSES = "enforcement/test_nothing_crosses.py::test_no_message_crosses"
LEDGER = "attacks/test_wire_ledger.py::test_what_was_not_decided_was_not_forwarded"
ERA = f"{REVISION}::test_header_and_body_together_tell_the_era_or_contradict_each_other"
OTHER_METHODS = f"{METHODS}::test_every_other_method_of_every_revision_is_refused_as_a_request_and_never_acted_on"
OWN_LIST = f"{RESULTS}::test_a_list_is_this_callers_and_nobody_elses"
OWN_LISTS = f"{STATELESS}::test_lists_are_the_callers_own_in_both_eras_alike"
ABOUT_THE_BODY = f"{STATELESS}::test_policy_is_asked_about_the_body_and_the_token_counts_on_each_request"
FOREIGN_SESSION = f"{HTTP}::test_a_session_of_somebody_else_is_not_found_on_any_method"
NO_TASKS = "Tasks are refused in both eras: neither the MongoDB MCP server nor the table of methods has them."

REQUIREMENTS: Final[dict[str, Row]] = {
    "V-01": held(
        f"{REVISION}::test_the_revisions_are_those_of_the_official_sdk",
        f"{REVISION}::test_an_unknown_revision_is_answered_with_the_latest",
    ),
    "V-02": held(f"{NEGOTIATES}::test_each_mode_gets_its_revision", OWN_LISTS, NOTHING_CROSSES),
    "V-03": held(LEDGER, f"{REVISION}::test_the_requested_revision_is_repeated_and_both_eras_are_listed"),
    "V-04": held(
        f"{REVISION}::test_a_known_revision_is_agreed_to",
        f"{REVISION}::test_an_unknown_revision_is_answered_with_the_latest",
    ),
    "V-05": held(
        f"{HTTP}::test_a_revision_that_is_not_the_sessions_is_refused",
        f"{REVISION}::test_the_header_is_the_sessions_revision_or_absent",
    ),
    "V-06": held(ERA),
    "V-07": held(
        ERA,
        f"{REVISION}::test_no_header_with_a_body_that_says_something_else_is_of_an_era",
        LEDGER,
    ),
    "V-08": held(
        f"{NEGOTIATES}::test_a_client_of_a_later_revision_is_told_what_is_spoken",
        f"{TO_STATELESS}::test_a_server_without_a_handshake_is_asked_what_it_speaks_and_called",
        f"{TO_STATELESS}::test_a_server_of_the_other_era_that_takes_its_place_is_found_out_and_no_call_fails",
    ),
    "V-09": held(f"{RESULTS}::test_what_is_discovered_is_of_the_schema_and_lists_both_eras"),
    "V-10": NotServed(
        "Both eras are served on the one endpoint.", (f"{NEGOTIATES}::test_each_mode_gets_its_revision",)
    ),
    "M-01": held(f"{STATELESS}::test_there_is_no_other_leg"),
    "M-02": held(
        f"{ADMISSION}::test_any_other_origin_is_refused",
        f"{HTTP}::test_what_is_refused_has_its_status_and_opens_no_session",
    ),
    "M-03": held(
        f"{ADMISSION}::test_any_other_host_is_refused",
        f"{HTTP}::test_what_is_refused_has_its_status_and_opens_no_session",
    ),
    "M-04": held(LEDGER, f"{HTTP}::test_what_is_refused_has_its_status_and_opens_no_session"),
    "M-05": held(LEDGER),
    "M-06": held(f"{STATELESS}::test_a_notification_is_taken_in_and_acts_on_nothing"),
    "M-07": held(LEDGER, f"{LISTEN}::test_a_stalled_call_is_answered_on_a_stream_as_this_revision_has_it"),
    "M-08": held(
        f"{STREAMS}::test_a_call_that_stalls_becomes_a_stream_that_is_kept_alive_and_ends_with_its_answer",
        f"{HTTP}::test_a_silent_stream_is_kept_alive_by_comments",
    ),
    "M-09": held(LEDGER, f"{LISTEN}::test_a_stalled_call_is_answered_on_a_stream_as_this_revision_has_it"),
    "M-10": held(
        f"{LISTEN}::test_a_client_that_leaves_cancels_its_own_call_and_no_other",
        f"{LISTEN}::test_a_client_that_leaves_the_stream_of_its_answer_cancels_the_call",
        f"{TO_STATELESS}::test_a_cancelled_call_closes_its_connection_and_sends_nothing",
        NOTHING_CROSSES,
    ),
    "M-11": held(LEDGER, f"{METHODS}::test_nothing_that_the_stateless_revision_lacks_is_served_in_it"),
    "M-12": held(LEDGER, f"{DECODING}::test_json_that_is_no_message_is_refused_under_its_id_where_that_was_readable"),
    "M-20": held(LEDGER),
    "M-21": held(f"{STATELESS}::test_nothing_of_one_request_counts_for_another"),
    "M-22": held(
        f"{ASKED_ONCE}::test_where_a_confirmation_is_required_the_client_is_told_which_capability_it_lacks",
        LEDGER,
        f"{QUESTIONS}::test_without_a_session_nothing_is_asked_that_is_not_allowed",
    ),
    "M-23": held(f"{LISTEN}::test_log_messages_come_on_the_request_that_asks_for_them_and_on_no_other"),
    "M-24": held(
        f"{RESULTS}::test_a_result_says_that_it_is_complete_and_who_answers_and_keeps_what_it_had",
        f"{TO_STATELESS}::test_a_result_that_is_not_complete_is_a_violation",
    ),
    "M-25": held(
        f"{PARAMS}::test_the_decision_key_is_valid_and_not_reserved",
        f"{CALLS}::test_what_a_client_adds_to_a_call_does_not_travel_on",
    ),
    "M-30": held(LEDGER, f"{MIRRORED}::test_the_revision_is_the_bodys"),
    "M-31": held(
        LEDGER,
        f"{MIRRORED}::test_headers_that_say_something_else_are_refused",
        f"{MIRRORED}::test_every_header_that_the_official_client_sends_is_asked_for",
    ),
    "M-32": held(LEDGER),
    "M-33": held(
        f"{MIRRORED}::test_a_value_is_decoded_as_the_specification_says_or_counts_as_malformed",
        f"{MIRRORED}::test_anything_that_is_sent_is_read_as_the_official_sdk_reads_it",
    ),
    "M-34": held(
        f"{MIRRORED}::test_headers_of_arguments_repeat_them_exactly",
        f"{MIRRORED}::test_a_schema_without_annotated_properties_asks_for_nothing",
    ),
    "M-35": held(
        f"{MIRRORED}::test_headers_of_arguments_repeat_them_exactly",
        f"{MIRRORED}::test_a_header_without_its_argument_is_refused_and_neither_is_nothing",
    ),
    "M-36": held(
        ABOUT_THE_BODY,
        f"{TO_STATELESS}::test_a_name_that_no_header_carries_is_encoded",
        f"{TO_STATELESS}::test_an_argument_that_has_no_header_form_is_not_repeated",
    ),
    "M-37": held(
        f"{PARAMS}::test_a_call_is_its_name_and_arguments_and_nothing_else",
        f"{WIRE}::test_to_a_stranger_every_tool_is_answered_as_one_that_does_not_exist",
    ),
    "M-40": held(
        "mcp/test_error_codes.py::test_every_code_is_one_that_the_specification_leaves_or_defines",
        "mcp/test_error_codes.py::test_a_resource_that_is_not_there_has_the_code_of_its_era",
    ),
    "M-41": NotServed(
        "The sidecar ends the protocol on both sides: a server's error becomes a refusal of its own kind.",
        (f"{TO_STATELESS}::test_an_error_in_a_body_with_status_400_is_a_refusal",),
    ),
    "M-50": held(
        f"{LISTEN}::test_what_is_honoured_comes_first_and_every_message_names_the_request",
        f"{LISTEN}::test_a_client_that_did_not_ask_is_not_told",
        f"{LISTEN}::test_what_is_no_subscription_is_refused_with_its_id",
        "enforcement/test_list_news.py::test_who_listens_without_a_session_is_told_of_its_own_list_and_of_no_other",
    ),
    "M-51": held(
        f"{LISTEN}::test_a_subscription_ends_with_its_answer_when_the_token_does",
        f"{LISTEN}::test_a_subscription_ends_with_the_suspension_of_its_caller_and_no_other_does",
        f"{LISTEN}::test_one_identity_has_so_many_and_a_newer_one_ends_the_oldest",
        "integration/test_watched_resources.py"
        "::test_who_listens_without_a_session_is_told_what_is_honoured_and_then_of_changes",
    ),
    "M-52": held(
        f"{ASKED_ONCE}::test_a_call_ends_with_its_question_and_is_carried_out_when_it_comes_back_confirmed",
        f"{ASKED_ONCE}::test_what_is_no_retry_is_refused_and_the_state_is_still_good",
        f"{RESULTS}::test_what_is_no_complete_result_is_not_passed_on",
        f"{QUESTIONS}::test_without_a_session_the_call_ends_with_the_question_and_its_answer_counts_once",
        f"{QUESTIONS}::test_answers_that_nobody_asked_for_never_reach_a_server",
        LEDGER,
    ),
    "M-53": held(
        f"{ASKED_ONCE}::test_what_is_no_longer_allowed_when_it_comes_back_is_not_carried_out",
        f"{ASKED_ONCE}::test_a_user_who_was_suspended_meanwhile_confirms_nothing",
    ),
    "M-54": held(
        f"{ASKED_ONCE}::test_an_altered_state_is_refused",
        f"{ASKED_ONCE}::test_an_answer_confirms_no_other_call",
        f"{ASKED_ONCE}::test_a_state_lasts_as_long_as_a_user_may_take",
        f"{ASKED_ONCE}::test_of_many_retries_at_once_one_is_carried_out",
        "mcp/test_request_states.py::test_every_character_counts_and_there_is_one_spelling",
    ),
    "M-55": held(
        f"{ASKED_ONCE}::test_a_state_of_somebody_else_is_no_state_of_mine",
        f"{QUESTIONS}::test_a_state_is_good_for_its_caller_its_call_and_what_may_still_be_asked",
    ),
    "M-56": held(
        f"{ASKED_ONCE}::test_a_client_that_does_not_say_that_it_can_be_asked_is_not_asked",
        f"{ASKED}::test_a_client_that_cannot_be_asked_is_not_asked",
        f"{QUESTIONS}::test_a_client_is_not_asked_what_policy_or_the_client_does_not_allow",
        f"{ASKING_SERVER}::test_what_was_not_offered_is_asked_of_nobody",
    ),
    "M-57": NotServed(NO_TASKS, (OTHER_METHODS, f"{TO_STATELESS}::test_a_result_that_is_not_complete_is_a_violation")),
    "M-58": NotServed(NO_TASKS, (OTHER_METHODS, f"{METHODS}::test_what_the_server_starts_reaches_no_client")),
    "M-59": held(OWN_LIST, f"{RESULTS}::test_what_is_discovered_is_of_the_schema_and_lists_both_eras"),
    "M-60": held(OWN_LIST, OWN_LISTS),
    "M-61": held(OWN_LIST, OWN_LISTS),
    "M-62": held(f"{PARAMS}::test_a_list_keeps_the_servers_order", OWN_LISTS),
    "M-63": held(
        f"{PARAMS}::test_a_list_takes_no_cursor_and_no_unknown_key",
        f"{CHILD}::test_the_tool_list_is_read_to_its_last_page_and_cached_until_it_changes",
    ),
    "M-64": held(
        "enforcement/test_live_tools.py::test_a_tool_too_deep_to_compare_is_a_fault_of_its_server_and_forgotten_with_it"
    ),
    "L-01": held(
        f"{HTTP}::test_a_session_is_opened_used_and_ended",
        f"{HTTP}::test_a_notification_that_nobody_acts_on_is_accepted",
    ),
    "L-02": held(
        f"{WIRE}::test_a_batch_is_decided_member_by_member",
        f"{METHODS}::test_initialize_is_the_one_method_that_no_batch_may_hold",
        f"{STREAMS}::test_a_batch_is_answered_with_one_array_whatever_its_calls_ask_for",
    ),
    "L-03": held(
        f"{WIRE}::test_a_batch_is_decided_member_by_member", f"{REVISION}::test_only_one_revision_has_batches"
    ),
    "L-04": held(
        f"{HTTP}::test_notifications_arrive_as_events",
        f"{HTTP}::test_the_newest_stream_of_a_session_wins",
        f"{HTTP}::test_two_sessions_have_a_stream_each",
    ),
    "L-05": held(
        f"{STREAMS}::test_a_client_that_lost_its_connection_gets_the_rest_of_its_stream_and_the_answer",
        f"{STREAMS}::test_nobody_else_resumes_a_stream_and_learns_nothing_of_it",
        f"{STREAMS}::test_only_clients_of_2025_11_25_are_primed_with_an_event_without_a_message",
        f"{STREAMS}::test_a_stream_that_the_server_ended_ends_for_its_client_too_which_comes_back_for_the_answer",
        f"{TO_HTTP}::test_a_stream_that_its_server_ends_before_the_answer_is_gone_on_with",
        NOTHING_CROSSES,
    ),
    "L-06": held(
        f"{OWNERSHIP}::test_a_session_id_is_new_and_of_visible_ascii",
        f"{HTTP}::test_get_and_delete_need_a_token_and_a_session_and_have_no_body",
        f"{HTTP}::test_a_session_is_opened_used_and_ended",
    ),
    "L-07": held(
        FOREIGN_SESSION,
        f"{OWNERSHIP}::test_another_identity_is_answered_exactly_as_for_a_session_that_never_was",
        f"{WIRE}::test_a_session_of_somebody_else_is_one_that_never_was",
        NOTHING_CROSSES,
    ),
    "L-08": held(f"{LISTEN}::test_a_client_that_leaves_within_a_session_cancels_nothing", NOTHING_CROSSES),
    "L-09": held(
        f"{ASKED}::test_only_the_asked_session_of_the_asked_identity_answers",
        f"{ASKED}::test_an_answer_counts_once",
        f"{ASKED}::test_an_answer_without_a_session_is_refused",
        f"{QUESTIONS}::test_only_the_session_that_was_asked_answers_and_only_once",
    ),
    "L-10": held(
        f"{STREAMS}::test_news_of_no_call_go_to_the_general_stream_only_and_can_be_resumed_there",
        f"{STREAMS}::test_two_calls_hear_each_their_own",
        NOTHING_CROSSES,
    ),
    "L-11": held(f"{STATELESS}::test_headers_of_a_request_within_a_session_mean_nothing"),
    "L-12": NotServed(
        "HTTP with SSE of 2024-11-05 is deprecated and not served; its GET lacks a session and is refused.",
        (f"{HTTP}::test_get_and_delete_need_a_token_and_a_session_and_have_no_body",),
    ),
    "L-13": NotServed(NO_TASKS, (OTHER_METHODS,)),
    "L-14": held(
        f"{DECODING}::test_the_number_one_and_the_text_one_are_two_ids_in_a_batch",
        f"{STREAMS}::test_progress_reaches_the_token_that_asked_in_its_own_type",
        f"{STATELESS}::test_two_clients_of_one_identity_may_use_the_same_id_at_once",
        NOTHING_CROSSES,
    ),
    "S-01": held(
        "mcp/test_lines.py::test_any_cutting_gives_the_same_lines",
        "upstream/test_upstream_messages.py::test_a_request_is_one_line_that_decodes_to_itself",
        f"{CHILD}::test_garbage_on_standard_output_is_dropped_and_the_answer_still_arrives",
    ),
    "S-02": held(
        f"{CHILD}::test_the_child_sees_what_is_passed_and_a_minimal_base_and_nothing_of_ours",
        "upstream/test_child_environment.py::test_further_environment_is_lines_of_names_and_values",
    ),
    "S-03": held(
        f"{CHILD}::test_a_cancelled_call_is_cancelled_at_the_server",
        f"{CHILD_STATELESS}::test_a_late_call_is_cancelled_by_its_id",
        f"{CHILD_STATELESS}::test_a_change_of_tools_counts_when_it_names_the_request_to_listen",
        f"{CHILD_STATELESS}::test_what_it_asks_is_not_answered",
        f"{CHILD_STATELESS}::test_the_official_package_is_called_told_of_and_heard_without_a_handshake",
    ),
    "S-04": held(
        f"{CHILD_STATELESS}::test_a_child_that_knows_no_discovery_by_whatever_error_gets_a_handshake",
        f"{CHILD_STATELESS}::test_a_child_that_does_not_answer_what_it_does_not_know_gets_a_handshake",
        f"{CHILD_STATELESS}::test_a_child_that_refuses_the_handshake_with_any_error_is_asked_what_it_speaks",
        f"{CHILD_STATELESS}::test_a_child_of_another_revision_without_a_handshake_gets_none",
        "upstream/test_stdio_real_server.py::test_stopping_is_graceful",
    ),
    "S-05": held(
        f"{CHILD}::test_the_child_gains_no_privileges_and_leaves_no_core",
        f"{CHILD}::test_a_command_line_that_carries_a_secret_or_nothing_is_refused",
        f"{CHILD}::test_no_descriptor_of_ours_reaches_the_child",
    ),
    "G-01": NotServed(
        "The sidecar ends the protocol on both sides and forwards no header; one that nobody asked for means nothing.",
        (LEDGER, f"{TO_HTTP}::test_exactly_the_permitted_call_and_our_own_headers_are_sent"),
    ),
    "G-02": held(LEDGER),
    "G-03": held(f"{STATELESS}::test_headers_of_a_request_within_a_session_mean_nothing"),
    "G-04": held(ABOUT_THE_BODY, f"{HTTP}::test_heads_that_are_too_large_are_refused"),
    "G-05": held(f"{MIRRORED}::test_a_value_is_decoded_as_the_specification_says_or_counts_as_malformed"),
    "G-06": held(OWN_LISTS),
    "G-07": NotServed(
        "Servers are chosen by decision and every tool is pinned: one name is one tool, whichever server it goes to.",
        (f"{CALLS}::test_a_list_holds_only_what_the_servers_of_the_caller_offer",),
    ),
    "G-08": held(
        f"{TO_HTTP}::test_exactly_the_permitted_call_and_our_own_headers_are_sent",
        "integration/test_no_part_of_a_token.py::test_no_output_of_a_deployment_holds_a_part_of_what_was_presented",
    ),
    "G-09": NotServed("No requirement: what was not standardized when the page was written."),
    "G-10": held(
        f"{DECODING}::test_what_is_not_strict_json_is_a_parse_error",
        f"{DECODING}::test_the_deepest_message_is_accepted_and_the_next_is_refused",
        f"{ADMISSION}::test_an_encoded_body_is_refused",
        LEDGER,
    ),
}
