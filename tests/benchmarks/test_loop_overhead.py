"""The loop's overhead is measured on a real run, which the meter must leave as it found it."""

import loop_overhead
import numpy as np

from jaxft import run


def test_both_sides_of_a_run_are_timed_window_by_window():
    before = run.checked, run.phase_input
    case = loop_overhead.Case("resnet18", "head", 32, 8, 2)
    found = loop_overhead.measure(case, 2, decode=False)
    assert found["windows"] == 2
    assert min(found["bare_ms"], found["loop_ms"]) > 0
    np.testing.assert_allclose(found["overhead_percent"], 100 * (found["loop_ms"] / found["bare_ms"] - 1))
    assert (run.checked, run.phase_input) == before
