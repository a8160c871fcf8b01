"""When a client's connection has made no progress for too long."""

from mesh.node.activity import Activity, Ended, Limits

LIMITS = Limits(connections=10, headers=10.0, body=30.0, send=60.0)


def test_a_connection_without_complete_headers_ends_after_their_time_out() -> None:
    activity = Activity.new(now=0.0)
    activity.received(20, now=9.0)
    assert activity.why_end(9.9, LIMITS, awaits_body=False, unsent=0) is None
    assert activity.why_end(10.0, LIMITS, awaits_body=False, unsent=0) is Ended.HEADERS


def test_an_idle_connection_between_two_requests_stays_until_it_begins_one_and_does_not_finish_it() -> None:
    activity = Activity.new(now=0.0)
    activity.request_started()
    activity.request_ended(now=1.0)
    assert activity.why_end(3000.0, LIMITS, awaits_body=False, unsent=0) is None
    activity.received(5, now=3000.0)
    activity.received(5, now=3009.0)
    assert activity.why_end(3009.9, LIMITS, awaits_body=False, unsent=0) is None
    assert activity.why_end(3010.0, LIMITS, awaits_body=False, unsent=0) is Ended.HEADERS


def test_a_body_may_take_hours_while_a_kib_arrives_within_its_time_out() -> None:
    activity = Activity.new(now=0.0)
    activity.request_started()
    for now in range(0, 36_000, 20):
        activity.received(1024, now=float(now))
        assert activity.why_end(float(now), LIMITS, awaits_body=True, unsent=0) is None


def test_a_body_of_single_bytes_makes_no_progress() -> None:
    activity = Activity.new(now=0.0)
    activity.request_started()
    reasons = {}
    for now in range(40):
        activity.received(1, now=float(now))
        reasons[now] = activity.why_end(float(now), LIMITS, awaits_body=True, unsent=0)
    assert reasons[29] is None
    assert reasons[31] is Ended.BODY


def test_a_body_that_the_handler_has_no_room_for_is_not_awaited() -> None:
    activity = Activity.new(now=0.0)
    activity.request_started()
    assert activity.why_end(0.0, LIMITS, awaits_body=True, unsent=0) is None
    assert activity.why_end(29.0, LIMITS, awaits_body=False, unsent=0) is None
    assert activity.why_end(31.0, LIMITS, awaits_body=True, unsent=0) is None
    assert activity.why_end(61.0, LIMITS, awaits_body=True, unsent=0) is Ended.BODY


def test_a_response_that_the_client_does_not_take_ends_and_one_that_it_takes_slowly_does_not() -> None:
    activity = Activity.new(now=0.0)
    activity.request_started()
    for now, unsent in ((0.0, 5000), (50.0, 4000), (100.0, 3000), (159.0, 3000)):
        assert activity.why_end(now, LIMITS, awaits_body=False, unsent=unsent) is None
    assert activity.why_end(160.0, LIMITS, awaits_body=False, unsent=3000) is Ended.SEND


def test_a_handler_that_has_sent_all_that_it_has_may_take_its_time() -> None:
    activity = Activity.new(now=0.0)
    activity.request_started()
    assert activity.why_end(0.0, LIMITS, awaits_body=False, unsent=10) is None
    assert activity.why_end(1.0, LIMITS, awaits_body=False, unsent=0) is None
    assert activity.why_end(3600.0, LIMITS, awaits_body=False, unsent=0) is None
    assert activity.why_end(3601.0, LIMITS, awaits_body=False, unsent=10) is None
