"""A fine-tuned network's weights, as torchvision, timm and Hugging Face's transformers load them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.files import write_whole
from jaxft.weights import export, save_safetensors
from jaxft.weights.names import conventions, original_arguments, original_name, rules
from jaxft.weights.repository import timm_config, transformers_files
from jaxft.workdir import FineTuned, load_run

_WEIGHTS = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
      path: a `.safetensors` file, or a folder with it and its configs.
      to: for whom.
      tensors, bytes: of the weights.
      loads: the lines of Python that load it there.
    """

    path: Path
    to: str
    tensors: int
    bytes: int
    loads: str

    def __str__(self) -> str:
        return f"{self.path}: {self.tensors} tensors, {self.bytes / 1e6:.1f} MB, for {self.to}:\n{self.loads}"


def export_run(
    workdir: str | Path, out: str | Path, *, to: str = "timm", step: int | None = None, overwrite: bool = False
) -> Exported:
    """Writes a fine-tuned network, with its new head, for another library, which loads it with `strict=True`.

    Args:
      workdir: see `jaxft.load_run`, as `step`: None is the best checkpoint.
      out: a `.safetensors` file, or a folder: timm's and transformers' configs stand beside the weights there.
      to: "timm", "torchvision", "transformers", or "jaxft".
      overwrite: replace files that are there.

    Raises:
      JaxftError: no such run, a library that does not have the network, or has it with another kind of head.
    """
    tuned, out = load_run(workdir, step=step), Path(out)
    model = tuned.model
    known = ("jaxft", *conventions(model))
    if to not in known:
        raise JaxftError(f"{model.name} cannot be written for '{to}'{near(to, known)}; only for {', '.join(known)}")
    _check(tuned, to)
    variables = {"params": tuned.params, **tuned.model_state}
    arrays = tree.map_with_path(lambda _, leaf: np.asarray(leaf), variables)
    tensors = tree.flatten(arrays) if to == "jaxft" else export(arrays, rules(model, to))
    single = out.suffix == ".safetensors"
    files = {} if single else _configs(tuned, to)
    weights = out if single else out / _WEIGHTS
    there = [path for path in (weights, *(out / name for name in files)) if path.exists()]
    if there and not overwrite:
        raise JaxftError(f"{there[0]} exists: give another name, or overwrite it with --overwrite")
    try:
        weights.parent.mkdir(parents=True, exist_ok=True)
        save_safetensors(weights, tensors, _metadata(tuned, to))
        for name, content in files.items():
            write_whole(out / name, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise JaxftError(f"cannot write {out}: {error.strerror}") from error
    return Exported(out, to, len(tensors), weights.stat().st_size, _loads(tuned, to, out))


def _check(tuned: FineTuned, to: str) -> None:
    """The library must be able to make the network."""
    model = tuned.model
    if to == "jaxft":
        return
    if tuned.record["model"]["head"] != "linear":
        raise JaxftError(f"the head is an '{tuned.record['model']['head']}', which {to} does not have: write it for jaxft")
    if to == "torchvision" and model.in_channels != 3:
        raise JaxftError(f"the network takes {model.in_channels} channels, torchvision's 3: write it for timm or jaxft")


def _configs(tuned: FineTuned, to: str) -> dict[str, dict[str, Any]]:
    model = tuned.model
    if to == "timm":
        config = timm_config(model.name, model.preprocessing, model.num_classes)
        return {"config.json": {**config, "label_names": list(tuned.class_names)}}
    if to == "transformers":
        return transformers_files(model.name, model.preprocessing, model.num_classes, tuned.class_names)
    raise JaxftError(f"'{to}' has no config of a network: give a file that ends in .safetensors")


def _metadata(tuned: FineTuned, to: str) -> Mapping[str, str]:
    found = {
        "model": tuned.model.name,
        "head": tuned.record["model"]["head"],
        "num_classes": str(tuned.model.num_classes),
        "in_channels": str(tuned.model.in_channels),
        "preprocessing": json.dumps(dataclasses.asdict(tuned.model.preprocessing)),
        "class_names": json.dumps(list(tuned.class_names)),
        "step": str(tuned.step),
    }
    # transformers asks it of its files.
    return found if to == "jaxft" else {**found, "format": "pt"}


def _loads(tuned: FineTuned, to: str, out: Path) -> str:
    """Python that loads what was written."""
    model, single = tuned.model, out.suffix == ".safetensors"
    if to == "jaxft" or (single and to == "transformers"):
        return f"  jaxft.create_model({model.name!r}, {model.num_classes}, {str(out)!r})"
    if to == "timm" and not single:
        return f"  timm.create_model({f'local-dir:{out}'!r}, pretrained=True)"
    if to == "transformers":
        return f"  transformers.AutoModelForImageClassification.from_pretrained({str(out)!r})"
    theirs = original_name(model.name, to)
    if theirs is None:
        return f"  {to} has no {model.name}: only the names are its"
    options = {"num_classes": model.num_classes, **original_arguments(model, to)}
    if model.in_channels != 3:
        options["in_chans"] = model.in_channels
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    make = "timm.create_model" if to == "timm" else "torchvision.models.get_model"
    return f"  network = {make}({theirs!r}, {given})\n  network.load_state_dict(safetensors.torch.load_file({str(out)!r}))"
