"""Writes docs/models.md: every network, and how far each family is from the libraries its weights come from; needs no torch.

python scripts/make_matrix.py
"""

import datetime
import json
import platform
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]
import compared  # noqa: E402
import originals  # noqa: E402

from jaxft.models import architecture_of, list_models, pretrained_records, size_of  # noqa: E402
from jaxft.verify.verify import LIBRARIES  # noqa: E402

START = """# Networks

`jaxft models` prints the first table, `jaxft models NAME` all that is known of a network's weights. This page is written by
`scripts/make_matrix.py`.

## What there is

Parameters with a head of 1,000 classes; operations of one image of the network's own size, a multiply-add being two, products
with padding not counted. *Names* are the libraries whose files are read and written: of each, the number of parameters, all
names and all shapes of the network in full size are those that the library itself makes (`tests/models/test_zoo.py`, the whole
set in the slow tests). *Logits* is how far those of the network in full size are from each
library's, on the same seeded weights and two images of mostly 64 pixels, in float32: the largest difference over the largest
logit. In deep networks with gates (EfficientNet, RegNet Y, SE-ResNeXt) rounding grows ten million times and more on such
weights, whose blocks add up what trained ones hold in bounds: these are compared on kernels times 0.7 (*), and the deepest BiT,
which normalises its kernels anyway, in float64 (f64). The receipts in [`receipts/`](receipts) (`scripts/make_receipts.py`) tell
it layer by layer; `jaxft verify NAME` makes one.

The slow tests (`XLA_FLAGS= pytest -m slow -n 2`), which hold *names* and *logits* of the table, ran as a whole on 2026-11-26,
at commit e85b3cb: 1,212 passed in 99 minutes on two x86-64 cores with other work beside them (Python 3.11, jax 0.10.2).

`keras` are names in `.h5` files of keras.applications and of `model.save`, `keras3` those in `.weights.h5` and `.keras`.
EfficientNet's images are taken to be normalised as ImageNet's are, whatever a file's own layer of that says; VGG and ResNet
files read blue, green, red, which the names see to.

Not strictly loaded, or not whole: torchvision's MNASNet wants the `_metadata` of a state dict, which no file but torch's own
has (`jaxft export` prints the lines that add it); torchvision's Swin V2 wants buffers that are not written; transformers has
no classifier like ours for CLIP, SigLIP, DINOv3 and DINOv2 but for `_lc`, so that their head keeps our name.

"""
MIDDLE = """
## How far from the original

Tiny members of every family, at least one for each library and for each branch in the code, on the same weights and images.
Logits and maps in float32: largest difference over the largest logit; of the map after each stage, the furthest off by its norm
and by sampled entries. Loss, gradients and BatchNorm statistics of a batch in train mode in float64, against values kept in
float32: the parameter and the statistic that are furthest off; 0e+00 is equal in float32. A dash: there are none.

"""


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def receipts() -> dict[str, str]:
    """Of each network what the receipts on seeded weights say of its logits, by library."""
    found: dict[str, str] = {}
    for library in LIBRARIES:
        for file in sorted((ROOT / "docs" / "receipts").glob(f"*.{library}.json")):
            receipt = json.loads(file.read_text())
            if receipt["weights"].startswith("seeded"):
                mark = " (f64)" if receipt["dtype"] == "float64" else " (*)" if "gain" in receipt["weights"] else ""
                error = f"{library} {receipt['logits']['max_rel']:.0e}{mark}"
                found[receipt["network"]] = ", ".join(filter(None, [found.get(receipt["network"]), error]))
    return found


def networks() -> str:
    full, proved = json.loads((compared.FIXTURES / "full.json").read_text()), receipts()
    titles = ("network", "parameters", "GFLOP", "pixels", "names", "weights", "logits")
    text = row(*titles) + "|---|---:|---:|---:|---|---:|---|\n"
    for name in list_models():
        size, weights = size_of(name), len(pretrained_records(name))
        cells = f"{size.parameters / 1e6:,.1f} M", f"{size.flops / 1e9:,.2f}", str(size.size), ", ".join(full[name])
        text += row(f"`{name}`", *cells, str(weights or "-"), proved.get(name, "-"))
    return text


def comparisons() -> str:
    titles = ("case", "library", "logits", "maps", "loss", "gradients", "statistics")
    text = row(*titles) + "|---|---|---:|---:|---:|---:|---:|\n"
    for name, case in originals.cases().items():
        found = compared.Compared(case)
        errors = [
            found.logits_error(),
            max(found.stage_errors().values(), default=None),
            found.loss_error(),
            max(found.gradient_errors().values()),
            max(found.statistic_errors().values(), default=None),
        ]
        text += row(f"`{name}`", case.convention, *("-" if error is None else f"{error:.0e}" for error in errors))
        print(name, flush=True)
    return text


def main() -> None:
    families = {architecture_of(name).family for name in list_models()}
    weights = sum(len(pretrained_records(name)) for name in list_models())
    counts = f"{len(list_models())} networks of {len(families)} families, {weights} pretrained weights.\n\n"
    end = f"\nMeasured with jax {jax.__version__} on {platform.machine()}, {datetime.date.today().isoformat()}.\n"
    (ROOT / "docs" / "models.md").write_text(START + counts + networks() + MIDDLE + comparisons() + end)


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)  # each program runs once
    main()
