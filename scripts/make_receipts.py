"""Writes docs/receipts: every network of the registry against each library that has it, on seeded weights; and of the smallest
network of each family the references in jaxft/verify/references.

    python scripts/make_receipts.py --torch-python PYTHON [--only "resnet*"] [--again] [--most 100e6]

PYTHON has torch, torchvision and timm. A receipt that is there is kept, so an interrupted run goes on; --again makes it anew.
"""

import argparse
import fnmatch
import time
from pathlib import Path

from jaxft.errors import JaxftError
from jaxft.models import architecture_of, list_models, size_of
from jaxft.verify import verify
from jaxft.weights.names import original_name

ROOT = Path(__file__).parent.parent
RECEIPTS, REFERENCES = ROOT / "docs" / "receipts", ROOT / "jaxft" / "verify" / "references"


def smallest() -> set[str]:
    """The smallest network of each family, and the one of the documents."""
    found: dict[str, str] = {"": "resnet18"}
    for name in list_models():
        family = architecture_of(name).family
        if family not in found or size_of(name).parameters < size_of(found[family]).parameters:
            found[family] = name
    return set(found.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--only", default="*", help="glob over networks")
    parser.add_argument("--most", type=float, default=float("inf"), help="parameters of the largest")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    kept = smallest()
    for folder in (RECEIPTS, REFERENCES):
        folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(list_models(), key=lambda name: size_of(name).parameters):
        if not fnmatch.fnmatchcase(name, options.only) or size_of(name).parameters > options.most:
            continue
        for library in ("torchvision", "timm"):
            path = RECEIPTS / f"{name}.{library}.json"
            if original_name(name, library) is None or (path.exists() and not options.again):
                continue
            keep = REFERENCES / f"{name}.{library}.npz" if name in kept else None
            start = time.perf_counter()
            try:
                receipt = verify(name, None, against=library, torch_python=options.torch_python, keep=keep)
            except JaxftError as error:
                print(f"{name} {library}: {error}", flush=True)
                continue
            path.write_text(receipt.to_json())
            verdict = "equal" if receipt.equal else f"NOT EQUAL: {receipt.parting}"
            print(f"{name} {library}: {verdict}, {receipt.layers} layers, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
