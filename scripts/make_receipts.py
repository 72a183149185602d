"""Writes docs/receipts: every network of the registry against each library that has it, on seeded weights; of the smallest
network of each family the references in jaxft/verify/references; and of all some logits of the original, for the slow tests.

    python scripts/make_receipts.py --torch-python PYTHON [--only "resnet*"] [--again] [--most 100e6] [--train 10e6]
        [--processes 2]

PYTHON has torch, torchvision, timm and transformers. A receipt that is there is kept, so an interrupted run goes on; --again
makes it anew. A batch in train mode, in float64, takes longer than all else, and up to 40 bytes for each parameter: it is part
of the receipts of the smallest network of each family, and of those with up to --train parameters. Where float32 is not equal,
kernels drawn smaller decide (in deep networks with gates, which random weights throw open, rounding grows to all there is), or
float64.
"""

import argparse
import concurrent.futures
import fnmatch
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxft.errors import JaxftError
from jaxft.models import architecture_of, build, list_models, size_of
from jaxft.verify import verify
from jaxft.verify.original import read_reference
from jaxft.verify.verify import originals

ROOT = Path(__file__).parent.parent
RECEIPTS, REFERENCES = ROOT / "docs" / "receipts", ROOT / "jaxft" / "verify" / "references"
LOGITS = ROOT / "tests" / "models" / "fixtures" / "zoo" / "full_logits.npz"
#: The first that is equal is kept: rounding grows too much for float32 where gates or normalised kernels are many and deep.
ATTEMPTS: tuple[dict[str, Any], ...] = ({}, {"gain": 0.7}, {"dtype": "float64"})


class Pair(NamedTuple):
    """A network, a library that has it, the Python that has the library, whether its reference comes with jaxft, and whether a
    batch in train mode is compared."""

    network: str
    library: str
    python: str
    keep: bool
    train: bool

    @property
    def key(self) -> str:
        return f"{self.network}.{self.library}"


def smallest() -> set[str]:
    """The smallest network of each family that one of the libraries has, and the one of the documents."""
    found: dict[str, str] = {"": "resnet18"}
    for name in list_models():
        if not originals(build(name)):
            continue
        family = architecture_of(name).family
        if family not in found or size_of(name).parameters < size_of(found[family]).parameters:
            found[family] = name
    return set(found.values())


def make(pair: Pair) -> tuple[str, np.ndarray | None, str]:
    """Writes a pair's receipt: (its key, some logits of the original, what to print)."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kept = REFERENCES / f"{pair.key}.npz" if pair.keep else Path(folder) / "reference.npz"
        given = {"against": pair.library, "torch_python": pair.python, "keep": kept, "train": pair.train}
        try:
            for attempt in ATTEMPTS:
                receipt = verify(pair.network, None, **attempt, **given)
                if receipt.equal:
                    break
        except JaxftError as error:
            return pair.key, None, str(error)
        logits = read_reference(kept)[0].tensors["logits"].values
    (RECEIPTS / f"{pair.key}.json").write_text(receipt.to_json())
    verdict = "equal" if receipt.equal else f"NOT EQUAL: {receipt.parting}"
    took = f"{receipt.layers} layers, {time.perf_counter() - start:.0f} s"
    return pair.key, logits, f"{verdict} in {receipt.dtype} on {receipt.weights}, {took}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--only", default="*", help="glob over networks")
    parser.add_argument("--most", type=float, default=float("inf"), help="parameters of the largest")
    parser.add_argument("--train", type=float, default=0, help="parameters of the largest that is trained")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    small = smallest()
    for folder in (RECEIPTS, REFERENCES):
        folder.mkdir(parents=True, exist_ok=True)
    known = dict(np.load(LOGITS)) if LOGITS.exists() else {}
    pairs = []
    for name in sorted(list_models(), key=lambda name: size_of(name).parameters):
        if fnmatch.fnmatchcase(name, options.only) and size_of(name).parameters <= options.most:
            for library in originals(build(name)):
                train = name in small or size_of(name).parameters <= options.train
                pair = Pair(name, library, options.torch_python, name in small, train)
                done = pair.key in known and (RECEIPTS / f"{pair.key}.json").exists()
                if options.again or not done:
                    pairs.append(pair)
    # A process a network: what a large one took is given back. One that is killed, for want of memory, ends the script.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.processes, context, max_tasks_per_child=1) as pool:
        made = concurrent.futures.as_completed([pool.submit(make, pair) for pair in pairs])
        for number, (key, logits, said) in enumerate((future.result() for future in made), start=1):
            print(f"{number} of {len(pairs)}: {key}: {said}", flush=True)
            if logits is not None:
                known[key] = logits
                np.savez_compressed(LOGITS, **dict(sorted(known.items())))


if __name__ == "__main__":
    main()
