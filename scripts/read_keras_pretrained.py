"""Writes jaxft/models/pretrained_keras.json: where the weights of keras.applications are, as its own code asks for them.

What each network would download is taken down, and not downloaded: URL and hash. Most hashes are md5, which is no help here:
those files' sha256 is noted at the first download. Keras publishes neither licences nor accuracies with them.

Needs keras and jaxft in an environment of its own:
    python scripts/read_keras_pretrained.py
"""

import dataclasses
import json
from pathlib import Path
from unittest import mock

import keras
from keras.src.utils import file_utils
from make_keras_fixtures import zeros  # first: it chooses Keras' backend

from jaxft.models import build, list_models
from jaxft.weights.names import original_arguments, original_name, preprocessing

ROOT = Path(__file__).parent.parent


class Asked(Exception):
    """(URL, hash) of what would be downloaded."""


def asked(name: str) -> tuple[str, str]:
    def get_file(file, url, cache_subdir, file_hash=""):
        raise Asked(url, file_hash)

    keras.backend.clear_session()
    make = getattr(keras.applications, original_name(name, "keras"))
    with mock.patch.object(file_utils, "get_file", get_file):
        try:
            make(weights="imagenet", **original_arguments(build(name), "keras"))
        except Asked as found:
            return found.args
    raise AssertionError(name)


def record(name: str) -> dict:
    model = build(name)
    url, digest = asked(name)
    return {
        "tag": "imagenet" if name.startswith("keras_") else "keras_imagenet",
        "source": url,
        "sha256": digest if len(digest) == 64 else "",
        "convention": "keras",
        "num_classes": 1000,
        "preprocessing": dataclasses.asdict(preprocessing(model, "keras")),
        "licence": "",
        "accuracy": None,
        "accuracy_source": "",
    }


def main() -> None:
    records = {name: [record(name)] for name in list_models() if original_name(name, "keras")}
    lines = [f'"{name}": [\n {json.dumps(found[0])}\n]' for name, found in records.items()]
    (ROOT / "jaxft" / "models" / "pretrained_keras.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(lines)} weights")


if __name__ == "__main__":
    with zeros():
        main()
