"""The defaults of control's limits."""

from mesh.control.settings import ControlSettings


def test_the_waits_of_a_delivery_double_up_to_an_hour_and_half_of_each_is_random():
    backoff = ControlSettings().webhook_backoff
    longest = [backoff.wait(failures, lambda: 0.0) for failures in range(1, 100)]
    assert [round(seconds) for seconds in longest[:5]] == [1, 2, 4, 8, 16]
    assert max(longest) <= 3600
    assert backoff.wait(3, lambda: 1.0) == 2
