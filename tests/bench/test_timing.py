import pytest

from jaxft.bench import OutOfMemory, Timing, ratio, time_in_turns
from jaxft.bench.timing import calls_for


def test_a_disturbed_round_moves_neither_the_median_nor_the_best():
    timing = Timing((1.0, 1.2, 1.1, 9.0, 1.0))
    assert (timing.median, timing.best, timing.quartiles) == (1.1, 1.0, (1.0, 1.2))


def test_quartiles_lie_between_rounds_where_they_must():
    assert Timing((4.0, 1.0, 3.0, 2.0)).quartiles == (1.75, 3.25)
    assert Timing((2.0,)).quartiles == (2.0, 2.0)


def test_a_ratio_is_of_neighbouring_rounds():
    """The machine is twice as slow for two rounds of five: the ratio does not see it, a ratio of means would."""
    assert ratio(Timing((2.0, 4.0, 4.0, 2.0, 2.2)), Timing((1.0, 2.0, 2.0, 1.0, 1.0))) == 2.0
    with pytest.raises(ValueError, match="argument 2 is longer"):
        ratio(Timing((1.0,)), Timing((1.0, 2.0)))


def test_a_round_has_calls_enough_to_last():
    assert (calls_for(2.0, 0.3), calls_for(2.0, 5.0), calls_for(2.0, 0.0)) == (7, 1, 2_000_000_000)


def test_rounds_take_turns_and_last_as_long_as_asked():
    log = []

    def work(name, per_call):
        def run(calls):
            log.append((name, calls))
            return calls * per_call

        return run

    slow, fast = time_in_turns([work("slow", 1.5), work("fast", 0.25)], rounds=3, seconds=2.0)
    assert [name for name, _ in log] == ["slow", "fast"] * 5
    assert log[-6:] == [("slow", 2), ("fast", 8)] * 3
    assert slow == Timing((1.5,) * 3)
    assert fast == Timing((0.25,) * 3)


def test_the_warm_up_is_not_counted():
    seconds = iter([100.0, 1.0, 1.0, 1.0])
    (timing,) = time_in_turns([lambda calls: next(seconds)], rounds=2, seconds=1.0)
    assert timing == Timing((1.0, 1.0))


def test_work_that_runs_out_of_memory_is_left_out_and_the_rest_goes_on():
    calls_made = []

    def full(calls):
        calls_made.append(calls)
        if len(calls_made) == 4:
            raise OutOfMemory("out of memory: 12 GB")
        return calls * 1.0

    failed, found = time_in_turns([full, lambda calls: calls * 0.5], rounds=4, seconds=1.0)
    assert isinstance(failed, OutOfMemory)
    assert len(calls_made) == 4
    assert found == Timing((0.5,) * 4)
