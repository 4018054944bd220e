"""Timers: each makes its call once, or never."""

from pushrelay.server.sources import Timer


def test_a_timer_calls_once():
    calls = []
    timer = Timer(0.0, calls.append, ("called",))
    timer.run()
    timer.run()
    assert calls == ["called"]


def test_a_canceled_timer_never_calls_and_keeps_nothing():
    calls = []
    timer = Timer(0.0, calls.append, (calls,))
    timer.cancel()
    timer.run()
    assert calls == [] and timer._callback is None and timer._args == ()
