"""Compiles training steps for hardware that is not here, and records what the compilers said: docs/aot.json.

    python scripts/record_aot.py [NAME ...] [--out docs/aot.json]

takes `pip install 'jaxft[compile-tpu,compile-cuda,quickstart]'`. Each step is compiled by `jaxft compile` in a process of its
own; the command is part of the record. Names that are not given keep what was recorded of them. Nothing is run on any device.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Ten classes, 224 pixels.
COMMON = (
    "--config=configs/quickstart.py:scratch",
    "--config.model.size=224",
    "--config.phases.phase1.length=20 steps",
    "--config.optim.warmup=0 steps",
)
HEAD = ("--config.model.name=resnet50", "--config.phases.phase1.train=head")
RESNET = ("--config.model.name=resnet50", "--config.phases.phase1.train=full", "--config.model.dtype=bfloat16")
SMALL = ("--config.model.name=resnet18", "--config.phases.phase1.train=full", "--config.model.dtype=bfloat16")
VIT = ("--config.model.name=vit_base_patch16_224", "--config.phases.phase1.train=full", "--config.model.dtype=bfloat16")

#: name -> target, examples in a step, what else.
STEPS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "resnet50 head v5e:2x4": ("v5e:2x4", 256, HEAD),
    "resnet50 head v5e:16x16": ("v5e:16x16", 8192, HEAD),
    "resnet50 head 2xv5e:4x4": ("2xv5e:4x4", 1024, HEAD),
    "resnet50 head h100:8": ("h100:8", 256, HEAD),
    "resnet50 head h100:2x8": ("h100:2x8", 512, HEAD),
    "resnet18 full h100:8": ("h100:8", 256, SMALL),
    "resnet18 full deterministic h100:8": ("h100:8", 256, (*SMALL, "--deterministic")),
    "resnet18 full fsdp v5e:2x4": ("v5e:2x4", 256, (*SMALL, "--mesh=1x8x1")),
    "resnet50 full fsdp h100:8": ("h100:8", 512, (*RESNET, "--mesh=1x8x1")),
    "vit_b_16 full fsdp h100:8": ("h100:8", 512, (*VIT, "--mesh=1x8x1")),
    "vit_b_16 full fsdp v5e:4x4": ("v5e:4x4", 512, (*VIT, "--mesh=1x16x1")),
    "resnet50 full fsdp v5e:4x4": ("v5e:4x4", 512, (*RESNET, "--mesh=1x16x1")),
    "vit_b_16 full too large v5e:2x2": ("v5e:2x2", 2048, VIT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(map(repr, STEPS))}; all if none is given")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "aot.json")
    options = parser.parse_args()
    if unknown := set(options.names) - set(STEPS):
        parser.error(f"no step is called {', '.join(map(repr, unknown))}")
    recorded = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.names or STEPS:
        recorded[name] = record(name)
        options.out.write_text(json.dumps({name: recorded[name] for name in STEPS if name in recorded}, indent=1) + "\n")


def record(name: str) -> dict[str, object]:
    target, batch, more = STEPS[name]
    arguments = ["compile", f"--target={target}", *COMMON, f"--config.input.batch_size={batch}", *more]
    print(f"{name}: jaxft {shlex.join(arguments)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "jaxft", *arguments, f"--json={file}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, file=sys.stderr, flush=True)
        if not file.exists():
            raise SystemExit(f"{name}: nothing was compiled (exit code {done.returncode})")
        found = json.loads(file.read_text())
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    command_line = shlex.join(["jaxft", *arguments])
    return {"command": command_line, "date": date, "python": sys.version.split()[0], "exit_code": done.returncode, **found}


if __name__ == "__main__":
    main()
