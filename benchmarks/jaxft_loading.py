"""jaxft's side of `loading.py`: `jaxft.data.train_batches`. See `serve.py` for the protocol.

A work is {"variant", "root", "records", "examples", "batch", "size", "threads"}; a variant is "folder" or "records", with
"+processes" as many processes decode as else threads, with "+full" JPEGs are decoded at their full size whatever is needed of
them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
from typing import Any

from fed import check, fed
from PIL import Image, features
from serve import Missing, Prepared, serve

from jaxft.data import open_data, train_batches
from jaxft.preprocessing import Preprocessing


def prepare(work: dict[str, Any]) -> Prepared:
    kind, *options = work["variant"].split("+")
    sources = {"folder": f"folder:{work['root']}", "records": f"records:{work['records']}"}
    if kind not in sources or not {"full", "processes"}.issuperset(options):
        raise Missing(f"jaxft has no variant '{work['variant']}'")
    source = open_data(sources[kind], val_fraction=0.0, test_fraction=0.0).train
    check(len(source), work)
    workers = {"processes" if "processes" in options else "threads": work["threads"]}
    batches = functools.partial(
        train_batches, source, Preprocessing(size=work["size"]), batch_size=work["batch"], seed=0,
        augment="random_resized_crop", scaled_decode="full" not in options, **workers,
    )  # fmt: skip
    return fed(lambda: contextlib.closing(batches()), work["batch"])


def versions() -> dict[str, str]:
    jpeg = str(features.version("libjpeg_turbo"))
    return {"jaxft": importlib.metadata.version("jaxft"), "pillow": Image.__version__, "libjpeg_turbo": jpeg}


if __name__ == "__main__":
    serve(prepare, versions=versions)
