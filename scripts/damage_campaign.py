"""Damages a checkpoint in every way, one at a time, and sees whether it is named and the one before it is taken.

Single flipped bits and truncations over every file of the newest checkpoint of a finished run, files removed, and files that do
not belong there. Whatever `Checkpoints.newest_whole` takes for whole is a finding. Needs nothing but jaxft:

  python scripts/damage_campaign.py --flips 1000 --cuts 200 --result docs/damage.json
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_run import draw_folder, write_recipe  # noqa: E402

from jaxft.checkpoint import Checkpoints  # noqa: E402

SETTINGS = ("--config.train.checkpoint_every=1 steps", "--config.train.eval_every=2 steps")


def finished(base):
    """The checkpoints of a run that has ended: the newest, and an older one that is the best."""
    recipe = write_recipe(base / "tiny.py", draw_folder(base / "photos"))
    command = [sys.executable, "-m", "jaxft", "train", f"--config={recipe}", f"--workdir={base / 'run'}", *SETTINGS]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return base / "run" / "checkpoints"


def flip(file, rng):
    data = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def cut(file, rng):
    os.truncate(file, rng.randrange(file.stat().st_size))


def named(checkpoints, newest, before):
    """Whether the damage is said and the checkpoint before is taken; puts the damaged one back."""
    said = []
    reader = Checkpoints(checkpoints)
    try:
        taken = reader.newest_whole(said.append)
    finally:
        reader.close()
    aside = checkpoints / f"damaged-{newest}"
    if aside.exists():
        aside.rename(checkpoints / str(newest))
    return taken == before and len(said) == 1 and f"checkpoint {newest} is damaged" in said[0]


def campaign(base, flips, cuts, seed):
    checkpoints = finished(base)
    before, newest = sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    folder = checkpoints / str(newest)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    whole = base / "whole"
    shutil.copytree(folder, whole)
    rng = random.Random(seed)
    counts, findings = {"flips": 0, "cuts": 0, "removed": 0, "added": 0}, []

    def tried(kind, file, damage):
        damage()
        counts[kind] += 1
        if not named(checkpoints, newest, before):
            findings.append(f"{kind} {file}")
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if (whole / file).exists():
            shutil.copy(whole / file, folder / file)
        else:
            (folder / file).unlink()

    for number in range(flips):
        file = files[number % len(files)]
        tried("flips", file, lambda file=file: flip(folder / file, rng))
    for number in range(cuts):
        file = files[number % len(files)]
        tried("cuts", file, lambda file=file: cut(folder / file, rng))
    for file in files:
        tried("removed", file, lambda file=file: (folder / file).unlink())
    for name in ("stray", "params/stray", "meta/stray"):
        tried("added", name, lambda name=name: (folder / name).write_bytes(b"x"))
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint")},
        "seed": seed,
        "files": len(files),
        **counts,
        "findings": findings,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=pathlib.Path, help="a JSON file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jaxft-damage-") as folder:
        found = campaign(pathlib.Path(folder), options.flips, options.cuts, options.seed)
    print(json.dumps(found, indent=2))
    if options.result:
        options.result.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if found["findings"] else 0)


if __name__ == "__main__":
    main()
