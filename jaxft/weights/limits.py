"""What reading one file may cost, in proportion to its size."""

from __future__ import annotations

from jaxft.errors import JaxftError


class UnsafeCheckpoint(JaxftError):
    """A file that is not a whole, plain torch checkpoint: damaged, or made to do harm."""


#: Steps, of half a microsecond to one, that any file may take; that a byte of a file adds; that none may exceed. A tensor takes
#: some 60, with its name: 3,000 parameters with an Adam state of three tensors each take 750,000, and 40 MB if each is small.
STEPS = 300_000
STEPS_PER_BYTE = 1 / 64
MAX_STEPS = 4_000_000
#: Bytes of memory of our own that any file may take, and that a byte of a file adds. Tensors are views of the file and take
#: none but their headers: about 2.5 kB each with all that is said of them, by the cautious prices that the readers charge.
MEMORY = 6 << 20
MEMORY_PER_BYTE = 2
#: Bytes that the tensors of a file may claim together: tied ones each their own, an expanded one as if it were written out.
CLAIMS = 64 << 20
CLAIMS_PER_BYTE = 16
MAX_CLAIMS = 1 << 35


class Limits:
    """What is left for a file of `size` bytes: `steps` of work, bytes of `memory`, and `claims` of its tensors."""

    __slots__ = ("claims", "memory", "steps")

    def __init__(self, size: int):
        self.steps = min(MAX_STEPS, STEPS + int(size * STEPS_PER_BYTE))
        self.memory = MEMORY + size * MEMORY_PER_BYTE
        self.claims = min(MAX_CLAIMS, CLAIMS + size * CLAIMS_PER_BYTE)

    def spend(self, steps: int, memory: int) -> None:
        """Called before the work is done and before the memory is taken.

        Raises:
          UnsafeCheckpoint: more than is left.
        """
        self.steps -= steps
        self.memory -= memory
        if self.steps < 0 or self.memory < 0:
            self.check()

    def check(self) -> None:
        """Says what of it ran out, if something did."""
        if self.steps < 0:
            raise UnsafeCheckpoint("it takes more steps to read than a file of its size may")
        if self.memory < 0:
            raise UnsafeCheckpoint("it takes more memory to read than a file of its size may")

    def claim(self, size: int) -> None:
        """Called with the bytes of each tensor.

        Raises:
          UnsafeCheckpoint: more than is left.
        """
        self.claims -= size
        if self.claims < 0:
            raise UnsafeCheckpoint("the tensors claim more memory than a file of this size may")
