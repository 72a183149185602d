"""A fine-tuned network's weights, as torchvision, timm, Hugging Face's transformers and Keras load them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxft import tree
from jaxft.adapter_file import save_adapter, save_peft
from jaxft.errors import JaxftError, near
from jaxft.files import write_whole
from jaxft.finetuned import FineTuned
from jaxft.weights import export, save_safetensors
from jaxft.weights.convert import KERAS
from jaxft.weights.keras_files import save_weights_h5
from jaxft.weights.names import conventions, original_arguments, original_name, rules, transformers_config
from jaxft.weights.peft import CONFIG as PEFT_CONFIG
from jaxft.weights.peft import WEIGHTS as PEFT_WEIGHTS
from jaxft.weights.repository import timm_config, transformers_files
from jaxft.workdir import load_run

_WEIGHTS = "model.safetensors"
#: What a run changed, without the pretrained weights.
ADAPTER_FORMATS = ("adapter", "peft")


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
    """Writes a run's network for another library: see `jaxft.load_run` and `export_network`."""
    return export_network(load_run(workdir, step=step), out, to=to, overwrite=overwrite)


def export_network(tuned: FineTuned, out: str | Path, *, to: str = "timm", overwrite: bool = False) -> Exported:
    """Writes a fine-tuned network, with its new head, for another library, which loads it with `strict=True`.

    Args:
      tuned: of `jaxft.load_run`.
      out: a `.safetensors` file; a folder, in which timm's and transformers' configs stand beside the weights; or what Keras 3
        loads, `.weights.h5`.
      to: "timm", "torchvision", "transformers", "keras3", or "jaxft": all weights, those of an adapter merged in. Or what the
        run changed alone: "adapter", a `.safetensors` file that `jaxft.load_run` takes, or "peft", LoRA or DoRA in a folder for
        Hugging Face's PEFT.
      overwrite: replace files that are there.

    Raises:
      JaxftError: a library that does not have the network, or has it with another kind of head; files that are there.
    """
    out = Path(out)
    if to in ADAPTER_FORMATS:
        return _export_adapter(tuned, out, to, overwrite=overwrite)
    tuned = tuned.merged()
    model = tuned.model
    known = ("jaxft", *(convention for convention in conventions(model) if convention != "keras"))
    if to not in known:
        raise JaxftError(
            f"{model.name} cannot be written for '{to}'{near(to, known)}; only for {', '.join((*known, *ADAPTER_FORMATS))}"
        )
    _check(tuned, to)
    variables = {"params": tuned.params, **tuned.model_state}
    arrays = tree.map_with_path(lambda _, leaf: np.asarray(leaf), variables)
    tensors = tree.flatten(arrays) if to == "jaxft" else export(arrays, rules(model, to))
    single = out.name.endswith(".weights.h5" if to == KERAS else ".safetensors")
    files = {} if single else _configs(tuned, to)
    weights = out if single else out / _WEIGHTS
    _check_absent([weights, *(out / name for name in files)], overwrite=overwrite)
    try:
        weights.parent.mkdir(parents=True, exist_ok=True)
        if to == KERAS:
            save_weights_h5(weights, tensors)
        else:
            save_safetensors(weights, tensors, _metadata(tuned, to))
        for name, content in files.items():
            write_whole(out / name, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise JaxftError(f"cannot write {out}: {error.strerror}") from error
    return Exported(out, to, len(tensors), weights.stat().st_size, _loads(tuned, to, out))


def _export_adapter(tuned: FineTuned, out: Path, to: str, *, overwrite: bool) -> Exported:
    if to == "adapter":
        if out.suffix != ".safetensors":
            raise JaxftError(f"an adapter is one file: give a name that ends in .safetensors, not '{out}'")
        _check_absent([out], overwrite=overwrite)
        count = save_adapter(tuned, out)
        return Exported(out, to, count, out.stat().st_size, f"  jaxft.load_run({str(out)!r})")
    _check_absent([out / name for name in (PEFT_WEIGHTS, PEFT_CONFIG)], overwrite=overwrite)
    count, base = save_peft(tuned, out)
    network = f"{base or tuned.model.name}, with {tuned.model.num_classes} classes"
    loads = f"  peft.PeftModel.from_pretrained(network, {str(out)!r})  # the network: {network}"
    return Exported(out, to, count, (out / PEFT_WEIGHTS).stat().st_size, loads)


def _check_absent(paths: Sequence[Path], *, overwrite: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise JaxftError(f"{there[0]} exists: give another name, or overwrite it with --overwrite")


def _check(tuned: FineTuned, to: str) -> None:
    """The library must be able to make the network."""
    model = tuned.model
    if to == "jaxft":
        return
    if tuned.record["model"]["head"] != "linear":
        raise JaxftError(f"the head is an '{tuned.record['model']['head']}', which {to} does not have: write it for jaxft")
    size, whole = model.preprocessing.size, model.architecture.window_pixels
    if to in ("timm", "transformers") and whole and size % whole:
        raise JaxftError(
            f"at {size} pixels the maps of {model.name} are no whole windows, which {to} treats in a way of its own: "
            f"write it for jaxft, or fine-tune at a multiple of {whole} pixels"
        )
    config = transformers_config(model) if to == "transformers" else None
    if config and size % config.multiple:
        raise JaxftError(
            f"at {size} pixels transformers pads the maps of {model.name} in a way of its own: write it for timm or jaxft, or "
            f"fine-tune at a multiple of {config.multiple} pixels"
        )
    if to in ("torchvision", KERAS) and model.in_channels != 3:
        raise JaxftError(f"the network takes {model.in_channels} channels, that of {to} 3: write it for timm or jaxft")


def _configs(tuned: FineTuned, to: str) -> dict[str, dict[str, Any]]:
    model = tuned.model
    if to == "timm":
        config = timm_config(model.name, model.preprocessing, model.num_classes)
        return {"config.json": {**config, "label_names": list(tuned.class_names)}}
    if to == "transformers":
        return transformers_files(model.name, model.preprocessing, model.num_classes, tuned.class_names)
    ending = ".weights.h5" if to == KERAS else ".safetensors"
    raise JaxftError(f"'{to}' has no config of a network: give a file that ends in {ending}")


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
    theirs = original_name(model.name, "keras" if to == KERAS else to)
    if theirs is None:
        return f"  {to} has no {model.name}: only the names are its"
    if to == KERAS:
        side = model.preprocessing.size
        options = {"weights": None, "input_shape": (side, side, 3), "classes": model.num_classes}
        given = ", ".join(f"{key}={value!r}" for key, value in (options | original_arguments(model, "keras")).items())
        make = f"keras.applications.{theirs}({given})"
        return f"  network = {make}\n  network.load_weights({str(out)!r})"
    options = {"num_classes": model.num_classes, **original_arguments(model, to)}
    if model.in_channels != 3:
        options["in_chans"] = model.in_channels
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    make = "timm.create_model" if to == "timm" else "torchvision.models.get_model"
    network, weights = f"  network = {make}({theirs!r}, {given})\n", f"safetensors.torch.load_file({str(out)!r})"
    if to == "torchvision" and theirs.startswith("mnasnet"):  # wants the version of its modules, which only torch's files hold
        weights = f"  weights = collections.OrderedDict({weights})\n  weights._metadata = network.state_dict()._metadata\n"
        return f"{network}{weights}  network.load_state_dict(weights)"
    return f"{network}  network.load_state_dict({weights})"
