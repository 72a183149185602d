"""Times that can be compared: rounds that take turns, and figures that one disturbed round does not move."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence

from jaxft.errors import JaxftError


class OutOfMemory(JaxftError):
    """A piece of work does not fit into the memory of its device."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds a call, one figure a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def best(self) -> float:
        return min(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third, by linear interpolation; of one round, that round."""
        ordered = sorted(self.rounds)
        return _quantile(ordered, 0.25), _quantile(ordered, 0.75)


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def ratio(first: Timing, second: Timing) -> float:
    """How many times `second`'s time `first` takes: the median of the ratios of rounds run one after the other.

    Raises:
      ValueError: other numbers of rounds.
    """
    return statistics.median(a / b for a, b in zip(first.rounds, second.rounds, strict=True))


def calls_for(seconds: float, per_call: float) -> int:
    """Calls that last `seconds`, at least one."""
    return max(1, math.ceil(seconds / max(per_call, 1e-9)))


def time_in_turns(
    runs: Sequence[Callable[[int], float]], *, rounds: int = 5, seconds: float = 2.0
) -> list[Timing | OutOfMemory]:
    """Times several pieces of work in rounds that take turns: what disturbs the machine for a while disturbs all of them.

    Args:
      runs: number of calls -> seconds they took (`Work.run`).
      rounds: of every piece of work.
      seconds: a round lasts at least about this.

    Returns:
      The timing of each, in their order; the error of one that ran out of memory, which is then left out.
    """
    found: list[list[float] | OutOfMemory] = [[] for _ in runs]
    calls = [1] * len(runs)
    # Round -2 is the warm-up; round -1 tells how many calls a round takes.
    for number in range(-2, rounds):
        for place, run in enumerate(runs):
            times = found[place]
            if isinstance(times, OutOfMemory):
                continue
            try:
                per_call = run(calls[place]) / calls[place]
            except OutOfMemory as error:
                found[place] = error
                continue
            if number < 0:
                calls[place] = calls_for(seconds if number == -1 else min(seconds, 0.2), per_call)
            else:
                times.append(per_call)
    return [times if isinstance(times, OutOfMemory) else Timing(tuple(times)) for times in found]
