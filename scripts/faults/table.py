"""The list of faults: each is a function that gets a `Stage`, brings the fault in, and returns how the run ended."""

import dataclasses
from collections.abc import Callable

#: What must come of a fault.
EQUAL = "the same command afterwards ends bit-equal"
ITSELF = "the run itself ends bit-equal"
FINITE = "the run ends, all parameters finite"
UNTOUCHED = "nothing in the workdir is changed"
LOG_LOST = "the end is bit-equal but for lines of the log, which was removed"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault and what is expected of it.

    Attributes:
      name: what happens, as a person would say it.
      inject: (stage) -> (how the run ended, what takes the fault away or None).
      code: the exit code.
      says: what a line of the output must hold.
      then: one of the above.
      needs: of the machine; a function that says whether it has it.
      processes: of the run.
      traceback: a traceback is right: the fault is in a user's own code, or fails a write of Orbax, whose threads
        print theirs.
    """

    name: str
    inject: Callable
    code: int
    says: str
    then: str
    needs: Callable[[], bool]
    processes: int
    traceback: bool


FAULTS: list[Fault] = []


def fault(name, *, code, says, then=EQUAL, needs=lambda: True, processes=1, traceback=False):
    """Puts the function below on the list."""

    def add(inject):
        FAULTS.append(Fault(name, inject, code, says, then, needs, processes, traceback))
        return inject

    return add


def nothing(stage):
    return stage.train(), None


#: The control: what a run ends with that nothing happens to.
NOTHING = Fault("nothing", nothing, 0, "", ITSELF, lambda: True, 1, False)
