"""Who writes into a workdir that lies in a bucket.

Nothing there gives a lock back when its holder is killed, and a run that was killed is to go on at once, maybe on another
machine. So the newest one has it: whoever starts writes an object `.lock` that names it, and a run that finds another's name in
it writes nothing more and ends. It looks before it saves and before it writes logs. What two write in between is of one config,
and a checkpoint that is half of each has other hashes than its list.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from pathlib import Path

from jaxft.files import write_whole
from jaxft.paths import reaching


class Owner:
    """This run's name in the bucket.

    Args:
      path: of the object.

    Attributes:
      before: a line about the run that had it, where that did not end by itself; "" else.
      lost: another run has taken it over.
    """

    def __init__(self, path: Path) -> None:
        self.before, self.lost = "", False
        self._path, self._taken = path, False
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        self._name = {"run": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "started": started}

    @property
    def is_locked(self) -> bool:
        return self._taken

    def acquire(self) -> None:
        """Takes the workdir over.

        Raises:
          OSError: the bucket cannot be reached.
        """
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found = self._read()
            if not found.get("ended"):
                self.before = (
                    f"taking over {self._path.parent} from process {found.get('pid')} of {found.get('host')}, started "
                    f"{found.get('started')} UTC: where it still runs, it ends before it writes again"
                )
        write_whole(self._path, json.dumps(self._name) + "\n")
        self._taken = True

    def is_ours(self) -> bool:
        """Asks the bucket; where that cannot be reached nothing is known, and it is ours still."""
        if self._taken and not self.lost:
            with contextlib.suppress(OSError, json.JSONDecodeError):
                self.lost = self._read().get("run") != self._name["run"]
        return not self.lost

    def release(self) -> None:
        """Says that the run has ended, for the next one's sake."""
        if self._taken and self.is_ours():
            self._taken = False
            with contextlib.suppress(OSError):
                write_whole(self._path, json.dumps({**self._name, "ended": True}) + "\n")

    def _read(self) -> dict[str, object]:
        with reaching(self._path):
            content = self._path.read_text()
        found = json.loads(content)
        return found if isinstance(found, dict) else {}
