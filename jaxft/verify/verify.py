"""Holds a network against the one its weights were made for: a receipt that anyone can compute again."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxft.data import read_eval
from jaxft.errors import JaxftError
from jaxft.models import Model, architecture_of, build, pretrained, split_tag
from jaxft.preprocessing import normalize
from jaxft.verify import seeded
from jaxft.verify.compare import (
    Difference,
    batch_in_train_mode,
    compare_layers,
    difference,
    furthest,
    layer_names,
    run_layers,
)
from jaxft.verify.original import Original, Theirs, ask_original, read_reference, write_reference
from jaxft.verify.receipt import SINGLE, Receipt
from jaxft.weights import convert, export, load_model, save_safetensors
from jaxft.weights.names import foreign_shapes, original_arguments, original_name, rules, transformers_config
from jaxft.weights.sources import file_sha256

#: Whose networks ours are compared with.
LIBRARIES = ("torchvision", "timm", "transformers")
#: What inference is compared in.
DTYPES = ("float32", "float64")
#: Pixels of seeded images for random weights, unless the network needs larger ones, whole patches or whole windows.
SEEDED_SIZE = 64


def verify(
    name: str,
    weights: str | bool | None = True,
    *,
    against: str | None = None,
    seed: int = 0,
    gain: float = 1.0,
    size: int | None = None,
    batch: int = 2,
    dtype: str = "float32",
    train: bool = True,
    pictures: Sequence[str | Path] = (),
    torch_python: str | None = None,
    reference: str | Path | None = None,
    keep: str | Path | None = None,
    tolerance: float = SINGLE,
) -> Receipt:
    """Compares a network with its original, on the same weights and images.

    Args:
      name: of `list_models()`, and after a dot the tag of its weights.
      weights: as `pretrained` of `create_model`; None or False: weights and images from a seed.
      against: of `LIBRARIES`; None is the one whose names the weights have, else the first that has the network.
      seed: of random weights, images and labels.
      gain: random kernels are He-scaled (He et al. 2015, arXiv:1502.01852), times this. Where many blocks add up what they
        compute, or gates open by it, rounding grows ten million times and more; with 0.7 it does not.
      size, batch: of the images: pixels, and how many. A size of None is that of the weights; for random ones `SEEDED_SIZE`.
      dtype: of inference: "float32", or "float64", which tells a difference from rounding that grew from layer to layer.
      train: compare a batch in train mode too, in float64.
      pictures: files that both sides prepare as the weights of the tag want it, and classify in place of seeded images.
      torch_python: a Python that has torch and the library. None is this one, or, where that has no torch, the reference that
        comes with jaxft (see `packaged_reference`).
      reference: a file of `keep`, in place of the original: torch is not needed, and of each tensor some entries are compared.
      keep: a file to write with those entries, of the original.
      tolerance: relative, of stages and logits.

    Raises:
      JaxftError: no such network or weights, a library without the network, no torch, another dtype, no gain.
    """
    if dtype not in DTYPES:
        raise JaxftError(f"dtype is '{dtype}', not {' or '.join(DTYPES)}")
    if gain <= 0:
        raise JaxftError(f"gain is {gain:g}: it must be above zero, or all kernels would be zero and any two networks equal")
    name, tag = split_tag(name)
    if weights is True and tag:
        weights = tag
    made = load_model(name, None, weights, size=size) if weights else None
    model = made.model if made else seeded_model(name, tag, size, pictures=bool(pictures))
    tag = made.report.tag if made else tag
    if pictures and not tag:
        raise JaxftError(
            f"pictures are prepared as weights want them: name some, {name}.TAG (`jaxft models {name}` lists them)"
        )
    convention = made.report.convention if made else pretrained(name, tag).convention if tag else ""
    library, theirs = _original(model, against, convention)
    table = rules(model, library)
    if made:
        variables: Mapping[str, Any] = {"params": made.params, **made.model_state}
    else:
        variables = seeded_variables(model, library, seed, gain)
    images = seeded.images(seed, batch, model.preprocessing.size)
    if pictures:
        images = np.stack([_prepared(Path(file), model) for file in pictures])
    labels = seeded.labels(seed, len(images), model.num_classes)
    drawn = f"seeded {seed}" + (f", gain {gain:g}" if gain != 1 else "")
    about = {
        "network": model.name,
        "original": f"{library} {theirs}",
        "weights": made.report.sha256 if made else drawn,
        "images": [seed, *images.shape],
        "pictures": [file_sha256(Path(file)) for file in pictures],
        **({"dtype": dtype} if dtype != "float32" else {}),
    }
    if reference is None and torch_python is None and importlib.util.find_spec("torch") is None:
        reference = packaged_reference(model.name, library)
        if reference is None:
            raise JaxftError(
                f"torch is not installed here, and no reference of {model.name} comes with jaxft: give a Python that has torch "
                "with --torch-python, or a file of --keep with --reference"
            )
    if reference is not None:
        original = _kept(Path(reference), about)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            save_safetensors(path, export(variables, table))
            original = ask_original(
                library,
                theirs,
                weights=path,
                images=images,
                labels=labels,
                arguments=arguments_of(model, library),
                dtype=dtype,
                train=train,
                files=[Path(file) for file in pictures],
                tag=tag,
                python=torch_python,
            )
    if keep is not None:
        write_reference(Path(keep), original, about)
    double = in_float64(model)
    outputs, layers = run_layers(double if dtype == "float64" else model, variables, images)
    stages, parting, count = compare_layers(model, layers, original, table, tolerance)
    train = train and "loss" in original.tensors
    step = _train_step(double, variables, images, labels, table, original) if train else (None, None, None)
    logits = original.tensors["logits"]
    return Receipt(
        network=f"{name}.{tag}" if tag else name,
        original=f"{library} {theirs}",
        dtype=dtype,
        weights=made.report.source if made else drawn,
        sha256=made.report.sha256 if made else "",
        images=_described(images, pictures),
        stages=stages,
        layers=count,
        logits=difference("logits", outputs["logits"], logits),
        agreement=_agreement(outputs["logits"], logits),
        loss=step[0],
        gradients=step[1],
        statistics=step[2],
        pixels=_pixels(images, original),
        parting=parting,
        tolerance=tolerance,
        versions={
            "jax": jax.__version__,
            "flax": flax.__version__,
            "python": platform.python_version(),
            **original.versions,
        },
        date=datetime.date.today().isoformat(),
    )


def packaged_reference(name: str, library: str) -> Path | None:
    """The reference that comes with jaxft: of seed 0, and of two images. One network of most families has one."""
    path = Path(__file__).with_name("references") / f"{name}.{library}.npz"
    return path if path.is_file() else None


def _kept(path: Path, about: Mapping[str, Any]) -> Original:
    original, of = read_reference(path)
    keys = dict.fromkeys([*about, *of])
    other = [f"{key} {of.get(key)}, not {about.get(key)}" for key in keys if of.get(key) != about.get(key)]
    if other:
        raise JaxftError(f"{path} is a reference of something else: {'; '.join(other)}")
    return original


def _agreement(ours: np.ndarray, theirs: Theirs) -> float:
    """Share of the images with the same most likely class, among the classes that are known of theirs."""
    images, classes = np.unravel_index(np.arange(theirs.size)[theirs.indices], theirs.shape)
    agree = []
    for image in np.unique(images):
        known = np.flatnonzero(images == image)
        agree.append(ours[image, classes[known]].argmax() == theirs.values[known].argmax())
    return float(np.mean(agree))


def seeded_model(name: str, tag: str = "", size: int | None = None, *, pictures: bool = False) -> Model:
    """A network for random weights: of few pixels, or as the weights `tag` want their images."""
    if not pictures:
        architecture = architecture_of(name)
        if size is None and not architecture.window_pixels:
            patch = architecture.positions.patch if architecture.positions else 1
            size = max(-(-SEEDED_SIZE // patch) * patch, architecture.min_size)
        return build(name, size=size)
    preprocessing = pretrained(name, tag).preprocessing
    return dataclasses.replace(build(name, size=preprocessing.size), preprocessing=preprocessing)


def seeded_variables(model: Model, library: str, seed: int, gain: float = 1.0) -> dict[str, Any]:
    """Variables made of the seeded state dict that the network has in a library's names."""
    table = rules(model, library)
    return convert(seeded.state_dict(seed, foreign_shapes(model, library), gain), table, model.variables).tree


def originals(model: Model) -> dict[str, str]:
    """Of `LIBRARIES` those that have the network -> what it is called there."""
    names = {library: original_name(model.name, library) for library in LIBRARIES[:2]}
    config = transformers_config(model)
    names["transformers"] = config.architecture if config else None
    return {library: name for library, name in names.items() if name}


def _original(model: Model, against: str | None, convention: str) -> tuple[str, str]:
    """The library that is asked, and what the network is called there."""
    known = originals(model)
    library = against or (convention if convention in known else next(iter(known), ""))
    if library not in known:
        raise JaxftError(f"{library or ', '.join(LIBRARIES)} has no {model.name}; {', '.join(known) or 'nobody'} has it")
    return library, known[library]


def arguments_of(model: Model, library: str) -> dict[str, Any]:
    """What their network is made with."""
    if library != "transformers":
        return {"num_classes": model.num_classes, **original_arguments(model, library)}
    found = transformers_config(model)
    assert found is not None
    layers = layer_names(rules(model, library))
    head = next(name for path, name in layers.items() if model.stage_of(f"{path}/kernel") == "head")
    tops = {name.partition(".")[0] for name in foreign_shapes(model, library) if not name.startswith(f"{head}.")}
    return {
        "num_classes": model.num_classes,
        "model_type": found.model_type,
        "config": {**found.fields, **found.others},
        # Where transformers has no classifier: the attribute that the network is, "" for none, and the name of its head.
        "base": tops.pop() if len(tops) == 1 else "",
        "head": head,
    }


def _prepared(file: Path, model: Model) -> np.ndarray:
    pixels = read_eval(file, model.preprocessing)
    return np.asarray(normalize(jnp.asarray(pixels), model.preprocessing))


def _pixels(images: np.ndarray, original: Original) -> Difference | None:
    """Of the pictures as both sides prepared them, the one furthest off."""
    rows = []
    for number, theirs in original.part("pixels|").items():
        ours = images[int(number)].transpose(2, 0, 1)
        rows.append(difference(f"prepared picture {number}", ours, theirs))
    return furthest(rows)


def _described(images: np.ndarray, pictures: Sequence[str | Path]) -> str:
    size = f"{len(images)} of {images.shape[1]} pixels"
    names = ", ".join(Path(file).name for file in pictures)
    return f"pictures: {size} ({names})" if pictures else f"seeded images: {size}"


def in_float64(model: Model) -> Model:
    """The network in float64, without dropout and stochastic depth."""
    rates: dict[str, Any] = {option: 0.0 for option in ("dropout", "drop_path") if option in model.architecture.options}
    with jax.enable_x64(True):
        return build(model.name, model.num_classes, dtype="float64", size=model.preprocessing.size, **rates)


def _train_step(
    model: Model,
    variables: Mapping[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    table: Sequence[Any],
    original: Original,
) -> tuple[Difference, Difference, Difference | None]:
    """Loss, gradient and statistic furthest off, of a batch in train mode in float64."""
    value, found = batch_in_train_mode(model, variables, images, labels, table)
    gradients = original.part("grad|")
    largest = max(float(np.abs(theirs.values).max()) for theirs in gradients.values())
    worst = _furthest("gradients", found, gradients, floor=1e-9 * largest)
    assert worst is not None
    statistics = _furthest("statistics", found, original.part("state|"))
    return difference("loss", np.float64(value), original.tensors["loss"]), worst, statistics


def _furthest(
    title: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, Theirs], floor: float = 0.0
) -> Difference | None:
    """The tensor that is furthest off. What is below `floor` on both sides is zero but for rounding."""
    rows = []
    for name, value in theirs.items():
        if name in ours and max(np.abs(value.values).max(), np.abs(ours[name]).max()) > floor:
            rows.append(difference(f"{title}: {name}", ours[name], value))
    return furthest(rows)
