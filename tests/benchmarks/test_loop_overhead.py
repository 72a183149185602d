"""The loop's overhead is measured on a real run, which the meter must leave as it found it."""

import loop_overhead
import pytest

from jaxft import run

pytestmark = pytest.mark.usefixtures("quick_compiles")


def test_both_sides_of_a_run_are_timed_window_by_window(monkeypatch):
    calls, phase_input = [], run.phase_input

    def checked(step, *arguments, **more):
        return lambda *state_and_batch: calls.append(1) or step(*state_and_batch)

    monkeypatch.setattr(run, "checked", checked)  # put back after this test: other tests train in this process
    found = loop_overhead.measure(loop_overhead.Case("resnet10t", "head", 32, 8, 3), 2, decode=False)
    assert len(calls) == 2 + 2 * 3  # the loop's: two to warm up, then two windows; the bare steps go past it
    assert min(found["bare_ms"], found["loop_ms"]) > 0
    assert run.checked is checked
    assert run.phase_input is phase_input
