"""The closed method table, in both directions and for both kinds of message."""

import mcp_types.methods as sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.mcp.jsonrpc import Notification, Request
from sidecar.mcp.methods import KNOWN, Treatment, batchable, classify, from_upstream
from sidecar.mcp.revision import Era

H, S = Era.HANDSHAKE, Era.STATELESS
REQUESTS = {
    "initialize": {H: Treatment.LOCAL},
    "ping": {H: Treatment.LOCAL},
    "logging/setLevel": {H: Treatment.LOCAL},
    "tools/call": {H: Treatment.ENFORCE, S: Treatment.ENFORCE},
    "tools/list": {H: Treatment.FILTER, S: Treatment.FILTER},
    "server/discover": {S: Treatment.LOCAL},
    "subscriptions/listen": {S: Treatment.LOCAL},
    "resources/list": {H: Treatment.FILTER, S: Treatment.FILTER},
    "resources/templates/list": {H: Treatment.FILTER, S: Treatment.FILTER},
    "resources/read": {H: Treatment.ENFORCE, S: Treatment.ENFORCE},
    "resources/subscribe": {H: Treatment.ENFORCE},
    "resources/unsubscribe": {H: Treatment.LOCAL},
    "prompts/list": {H: Treatment.FILTER, S: Treatment.FILTER},
    "prompts/get": {H: Treatment.ENFORCE, S: Treatment.ENFORCE},
    "completion/complete": {H: Treatment.ENFORCE, S: Treatment.ENFORCE},
}
"""What is served, and in which era; everything else is refused."""
NOTIFICATIONS = {"notifications/initialized": Treatment.LOCAL, "notifications/cancelled": Treatment.LOCAL}
"""What is acted on in the one era that has notifications of clients."""
SPOOFS = [
    "",
    "TOOLS/CALL",
    "tools/call ",
    " tools/call",
    "tools//call",
    "tools/call\x00",
    "tools\\call",
    "tools/\u0441all",
]
DEFINED = sorted({method for table in (sdk.CLIENT_REQUESTS, sdk.CLIENT_NOTIFICATIONS) for method, _ in table})


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize("method", REQUESTS)
def test_a_request_is_treated_as_the_table_says_and_refused_as_a_notification(method, era):
    assert classify(Request(1, method), era) is REQUESTS[method].get(era, Treatment.REFUSE)
    assert classify(Notification(method), era) is Treatment.REFUSE


@pytest.mark.parametrize(("method", "expected"), NOTIFICATIONS.items())
def test_a_notification_is_treated_as_the_table_says_and_refused_as_a_request(method, expected):
    assert classify(Notification(method), H) is expected
    assert classify(Notification(method), S) is Treatment.DROP
    assert {classify(Request(1, method), era) for era in Era} == {Treatment.REFUSE}


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize("method", sorted({*DEFINED, *SPOOFS} - REQUESTS.keys() - NOTIFICATIONS.keys()))
def test_every_other_method_of_every_revision_is_refused_as_a_request_and_never_acted_on(method, era):
    assert classify(Request(1, method), era) is Treatment.REFUSE
    assert classify(Notification(method), era) in {Treatment.REFUSE, Treatment.DROP}


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize("method", sorted({method for method, _ in sdk.CLIENT_REQUESTS}))
def test_a_request_does_not_pass_as_a_notification(method, era):
    assert classify(Notification(method), era) is Treatment.REFUSE


@given(
    st.sampled_from(["notifications/progress", "notifications/tasks/status", "notifications/x"])
    | st.text().filter(lambda method: method not in KNOWN),
    st.sampled_from(Era),
)
def test_an_unknown_request_is_refused_and_an_unknown_notification_dropped(method, era):
    assert classify(Request(1, method), era) is Treatment.REFUSE
    assert classify(Notification(method), era) is Treatment.DROP


def test_nothing_that_the_stateless_revision_lacks_is_served_in_it():
    """The official SDK's table of methods says what each revision has."""
    stateless = {method for method, revision in sdk.CLIENT_REQUESTS if revision == "2026-07-28"}
    served = {method for method in REQUESTS if classify(Request(1, method), S) is not Treatment.REFUSE}
    assert served <= stateless
    assert {"initialize", "ping"}.isdisjoint(stateless)


@given(
    st.sampled_from(["notifications/cancelled", "notifications/resources/list_changed"])
    | st.text().filter(
        lambda method: (
            method
            not in {
                "ping",
                "elicitation/create",
                "sampling/createMessage",
                "roots/list",
                "notifications/tools/list_changed",
                "notifications/resources/updated",
                "notifications/prompts/list_changed",
                "notifications/progress",
                "notifications/message",
            }
        )
    )
)
def test_what_the_server_starts_reaches_no_client(method):
    assert from_upstream(method, notification=True) is Treatment.REFUSE
    assert from_upstream(method, notification=False) is Treatment.REFUSE


@given(st.sampled_from(["notifications/progress", "notifications/message"]))
def test_but_for_what_it_tells_of_a_call(method):
    assert from_upstream(method, notification=True) is Treatment.RELAY
    assert from_upstream(method, notification=False) is Treatment.REFUSE


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
def test_and_for_a_question_about_a_call(method):
    assert from_upstream(method, notification=False) is Treatment.RELAY
    assert from_upstream("elicitation/create", notification=True) is Treatment.REFUSE


def test_the_server_may_ping_and_say_that_its_tools_changed_and_not_the_other_way_round():
    assert from_upstream("ping", notification=False) is Treatment.LOCAL
    assert from_upstream("ping", notification=True) is Treatment.REFUSE
    assert from_upstream("notifications/tools/list_changed", notification=True) is Treatment.LOCAL
    assert from_upstream("notifications/tools/list_changed", notification=False) is Treatment.REFUSE


def test_initialize_is_the_one_method_that_no_batch_may_hold():
    assert not batchable("initialize")
    assert not batchable("subscriptions/listen"), "an array has no place for a stream"
    assert batchable("tools/call")
