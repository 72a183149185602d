"""The order of training examples, as a pure function of (seed, step).

Position p = step * batch + j of the endless stream belongs to epoch p // n. Which examples an epoch of n positions shows is
the sampler's; `permutation(seed, epoch)` says in which order. Batches run across the borders of epochs, and any position is
reached at once, so a resumed run needs only its step. "shuffle" shows every example exactly once an epoch; "balanced" and
"sqrt" draw by class, see `Order`. Permutations are NumPy's, from the streams of `jaxft.streams`; grain's shuffle would give the
same contract, but its stream is an internal of grain.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from jaxft.errors import JaxftError, near
from jaxft.streams import CLASS, ORDER, stream

SAMPLERS = ("shuffle", "balanced", "sqrt")

#: Threads ask for examples of one epoch at once: one of them makes its list, the others wait.
_LISTING = threading.Lock()


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """The endless stream of training examples.

    An epoch has n positions under every sampler. "balanced" gives each class that occurs the same number of them, "sqrt" a
    number in proportion to the square root of its examples; the number is whole, and after any number of epochs less than one
    away from the exact share of all of them (the method of largest remainders on the sum over epochs). A class fills its
    positions from a stream of its own: permutations of its examples, one pass after the other, without end. So of two examples
    of a class neither is ever shown more than once more often than the other.

    Attributes:
      seed: of the order.
      n: the number of examples.
      labels: [n] int, or [n, K] soft labels, whose class is the largest; "shuffle" needs none.
      sampler: one of `SAMPLERS`.
      views: how often each example stands in a batch, looking different each time; the stream is of examples.

    Raises:
      JaxftError: no such sampler, or one that draws by class where the labels are of many classes an example or of none.
    """

    seed: int
    n: int
    labels: np.ndarray | None = None
    sampler: str = "shuffle"
    views: int = 1

    def __post_init__(self) -> None:
        if self.views < 1:
            raise JaxftError(f"there are {self.views} views of an example: it must be at least 1")
        if self.sampler not in SAMPLERS:
            raise JaxftError(
                f"no sampler is called '{self.sampler}'{near(self.sampler, SAMPLERS)}; there are {', '.join(SAMPLERS)}"
            )
        if self.sampler != "shuffle" and sum(len(members) for _, members in self._classes) != self.n:
            raise JaxftError(f"there are {self.n} examples and {0 if self.labels is None else len(self.labels)} labels")

    def example_at(self, position: int) -> tuple[int, int]:
        """(pass, example) of a position. The pass is how often the example was shown before; of "shuffle", the epoch.

        What an example looks like depends on (seed, pass, example): shown twice in an epoch, it looks different each time.
        """
        epoch, place = divmod(position, self.n)
        place = int(permutation(self.seed, epoch, self.n)[place])
        if self.sampler == "shuffle":
            return epoch, place
        with _LISTING:
            passes, examples = _listed(self, epoch)
        return int(passes[place]), int(examples[place])

    def rows_at(self, step: int, batch_size: int, rows: Sequence[int]) -> list[tuple[int, int]]:
        """(shown, example) of some rows of a step's batch: how often the example was shown before, and which it is.

        Of M examples with V views, row v * M + k is view v of example k, and what an example looks like in its pass p it looks
        like where it was shown V * p + v times before. So views are all different, and rows k, k + A, k + 2 A, ... hold whole
        examples where A divides M.

        Args:
          step: steps made before.
          batch_size: V * M.
          rows: of the batch.

        Raises:
          JaxftError: no whole number of examples.
        """
        if batch_size % self.views:
            raise JaxftError(f"a batch of {batch_size} does not hold a whole number of examples with {self.views} views each")
        count, found = batch_size // self.views, []
        for row in rows:
            view, place = divmod(int(row), count)
            shown, example = self.example_at(step * count + place)
            found.append((self.views * shown + view, example))
        return found

    def batches(self, start_step: int, batch_size: int, rows: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """What `rows_at` gives, step for step without an end."""
        for step in itertools.count(start_step):
            yield self.rows_at(step, batch_size, rows)

    def passes(self, start: int, stop: int) -> tuple[int, int]:
        """The least and the greatest pass that the epochs of the positions [start, stop) show."""
        first, last = start // self.n, (stop - 1) // self.n
        if self.sampler == "shuffle":
            return first, last
        sizes = [len(members) for _, members in self._classes]
        begin, end = self._drawn_before(first), self._drawn_before(last + 1)
        return (
            min(drawn // size for drawn, size in zip(begin, sizes, strict=True)),
            max((drawn - 1) // size for drawn, size in zip(end, sizes, strict=True)),
        )

    @functools.cached_property
    def _classes(self) -> list[tuple[int, np.ndarray]]:
        """(label, examples) of each class that occurs."""
        labels = np.zeros(0) if self.labels is None else np.asarray(self.labels)
        if labels.ndim == 2 and np.allclose(labels.sum(-1), 1, atol=1e-3):
            labels = labels.argmax(-1)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise JaxftError(
                f"the sampler '{self.sampler}' draws by class and needs one class an example, not labels of the shape "
                f"{list(labels.shape)} and type {labels.dtype}: multi-label data and regressions take 'shuffle'"
            )
        present, counts = np.unique(labels, return_counts=True)
        members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        return list(zip(present.tolist(), members, strict=True))

    def _drawn_before(self, epoch: int) -> list[int]:
        """How many examples of each class the epochs before `epoch` have shown: never fewer than those before show."""
        # Whole numbers, so that it is exact however many epochs it is. A class of one example has 2**20 in "sqrt".
        weights = [1 if self.sampler == "balanced" else math.isqrt(len(members) << 40) for _, members in self._classes]
        whole = sum(weights)
        shares = [divmod(epoch * self.n * weight, whole) for weight in weights]
        drawn = [share for share, _ in shares]
        largest = sorted(range(len(shares)), key=lambda place: -shares[place][1])
        for place in largest[: epoch * self.n - sum(drawn)]:
            drawn[place] += 1
        return drawn


@functools.lru_cache(maxsize=2)
def _listed(order: Order, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """What an epoch shows, class by class: passes and examples, int64 [n]."""
    passes, examples = [], []
    begin, end = order._drawn_before(epoch), order._drawn_before(epoch + 1)
    for (label, members), start, stop in zip(order._classes, begin, end, strict=True):
        passes.append(np.arange(start, stop) // len(members))
        examples.append(_drawn(order.seed, label, members, start, stop))
    return np.concatenate(passes), np.concatenate(examples)


def _drawn(seed: int, label: int, members: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Places start to stop of a class's stream of permutations of its examples."""
    together = max(1, 1024 // len(members))  # passes that one generator draws: a class of one example is not slow
    block = together * len(members)
    blocks = range(start // block, -(-stop // block))
    drawn = [stream(seed, CLASS, number, label).permuted(np.tile(members, (together, 1)), axis=1).ravel() for number in blocks]
    return np.concatenate([members[:0], *drawn])[start - blocks.start * block :][: stop - start]


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of an epoch: int64 [n]."""
    return stream(seed, ORDER, epoch).permutation(n)


def batch_positions(step: int, batch_size: int, rows: Sequence[int]) -> list[int]:
    """Positions in the stream of some rows of a step's batch."""
    return [step * batch_size + int(row) for row in rows]


def batch_examples(order: Order, step: int, batch_size: int) -> list[int]:
    """The examples of a step's whole batch."""
    return [example for _, example in order.rows_at(step, batch_size, range(batch_size))]
