#!/usr/bin/env python3
"""Starts a command on several hosts by ssh, as the processes of one program; again, when one was lost.

python launch/ssh.py --hosts=host0,host1,host2,host3 -- .venv/bin/jaxft train --config=recipe.py --workdir=/shared/runs/photos

The command runs in the current folder, which all hosts share, with the variables by which JAX's processes find each other.
Ctrl-C or SIGTERM lets all save and end; a second one ends them at once. Where this script is killed itself, they save and end
too. Hosts let this user in without a password. It needs the standard library alone, and `sh` on the hosts. Written against
OpenSSH 9.2.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from typing import IO

STOPPED = 75
#: Exit codes after which all start again: stopped and saved, another one lost, aborted, killed, crashed, ended by SIGTERM
#: before it could save, and ssh's own code of a connection that is gone.
AGAIN = (STOPPED, 69, 134, 137, 139, 143, 255)
#: Seconds that the others have to end by themselves when one was lost: they notice after `config.parallel.lost_after`, 60.
PATIENCE = 120
#: Seconds between asking the others to end, because one failed, and ending them.
GRACE = 10
#: What a host's shell does: the command, and beside it the signals that come as lines of standard input. When those end, the
#: connection or this script is gone: then nobody is left to wait for the command.
_SHELL = """cd {folder} || exit 2
exec 3<&0
env {settings} {command} </dev/null & own=$!
(while read -r name; do kill -s $name $own; done; kill -s TERM $own; sleep 60; kill -s KILL $own) <&3 >/dev/null 2>&1 & ear=$!
wait $own; code=$?
kill $ear; exit $code"""


class Attempt:
    """One start of the command on all hosts.

    Attributes:
      processes: the ssh of each host, in order.
    """

    def __init__(self, options: argparse.Namespace, number: int):
        first = options.coordinator or options.hosts[0].rpartition("@")[2]
        self.processes: list[subprocess.Popen[bytes]] = []
        self._readers = []
        for index, host in enumerate(options.hosts):
            variables = {
                # A port of the attempt's own: what may be left of the last one does not answer.
                "JAX_COORDINATOR_ADDRESS": f"{first}:{options.port + number}",
                "JAX_NUM_PROCESSES": str(len(options.hosts)),
                "JAX_PROCESS_ID": str(index),
                **dict(setting.split("=", 1) for setting in options.env),
            }
            settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
            script = _SHELL.format(folder=shlex.quote(os.getcwd()), settings=settings, command=shlex.join(options.command))
            process = subprocess.Popen(
                ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", host, f"sh -c {shlex.quote(script)}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this script alone, which passes it on
            )
            self.processes.append(process)
            self._readers.append(threading.Thread(target=_show, args=(host, process.stdout), daemon=True))
            self._readers[-1].start()

    def tell(self, name: str) -> None:
        """Sends a signal to the command on all hosts where it still runs."""
        for process in self.processes:
            if process.poll() is None and process.stdin is not None:
                try:
                    os.write(process.stdin.fileno(), f"{name}\n".encode())
                except BrokenPipeError:
                    continue  # it ended just now

    def codes(self) -> list[int | None]:
        """Exit codes; None where the command still runs."""
        return [process.poll() for process in self.processes]

    def wait(self) -> list[int]:
        """Exit codes of all, once all have ended. When one was not good, the others end too, by themselves or not."""
        told: dict[str, float] = {}
        while None in (codes := self.codes()):
            ended = [code for code in codes if code is not None and code != 0]
            now = time.monotonic()
            if any(code not in AGAIN for code in ended) and "TERM" not in told:
                self.tell("TERM")
                told["TERM"], told["KILL"] = now, now + GRACE
            elif ended and "KILL" not in told:
                told["KILL"] = now + PATIENCE
            if now > told.get("KILL", now):
                self.tell("KILL")
                told["KILL"] = now + GRACE
            time.sleep(0.1)
        for reader in self._readers:
            reader.join(5)
        return [process.wait() for process in self.processes]


def _show(host: str, lines: IO[bytes]) -> None:
    for line in lines:
        sys.stdout.buffer.write(f"[{host}] ".encode() + line)
        sys.stdout.flush()


def run(options: argparse.Namespace) -> int:
    """Starts the command until it is finished, fails, is stopped by the user, or was started too often.

    Returns:
      0, or the exit code of a process that was not good; 75 where the user stopped it and everything is saved.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        attempt.tell("TERM" if len(asked) == 1 else "KILL")

    number = 0
    attempt = Attempt(options, number)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, ask)
    while True:
        codes = attempt.wait()
        print("ssh.py: " + ", ".join(f"{host} {code}" for host, code in zip(options.hosts, codes, strict=True)), flush=True)
        failed = [code for code in codes if code not in (0, *AGAIN)]
        bad = [code for code in codes if code != 0]
        if failed or not bad:
            return failed[0] if failed else 0
        if asked or number == options.restarts:
            print(f"ssh.py: not started again: {'you stopped it' if asked else f'{number} times was enough'}", flush=True)
            return STOPPED if set(bad) == {STOPPED} else bad[0]
        number += 1
        pause = min(60, 2**number)
        print(f"ssh.py: all start again in {pause} s ({number} of {options.restarts})", flush=True)
        end = time.monotonic() + pause
        while time.monotonic() < end and not asked:
            time.sleep(0.1)
        if asked:
            return bad[0]
        attempt = Attempt(options, number)
        if asked:  # while it was being made
            attempt.tell("TERM")


def main() -> int:
    parser = argparse.ArgumentParser(prog="ssh.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--hosts", required=True, type=lambda text: text.split(","), help="names for ssh; the first one leads")
    parser.add_argument("--coordinator", help="the first host's name for the others, if it is not the one for ssh")
    parser.add_argument("--port", type=int, default=8476, help="on the first host; each new start takes the next")
    parser.add_argument("--restarts", type=int, default=10, help="how often all may start again")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable for all processes")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="what runs on each host")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
