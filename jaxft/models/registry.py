"""Which networks there are, how each is built, and what pretrained weights exist for it."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib.resources
import json
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.models import efficientnet, resnet, vgg
from jaxft.preprocessing import Preprocessing
from jaxft.typing import ModelState, Outputs, Params, Trains


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as pure functions and names. Holds no arrays.

    Attributes:
      name: of the registry.
      num_classes, in_channels: width of the logits and of the image.
      module: the linen module.
      stages: stage name -> globs over parameter paths, in the order of the network, the head last; together they name every
        parameter once.
      first_conv: path of the kernel that reads the image.
      preprocessing: what an image must be.
    """

    name: str
    num_classes: int
    in_channels: int
    module: nn.Module
    stages: Mapping[str, tuple[str, ...]]
    first_conv: str
    preprocessing: Preprocessing

    def init(self, rng: jax.Array, size: int | None = None) -> tuple[Params, ModelState]:
        """Random parameters and fresh statistics, f32. Works under `jit` and `eval_shape`.

        Args:
          rng: a key.
          size: input size in pixels; parameters do not depend on it.
        """
        side = size or self.preprocessing.size
        image = jnp.zeros((1, side, side, self.in_channels), jnp.float32)
        variables = self.module.init({"params": rng}, image, False)
        return variables["params"], {key: value for key, value in variables.items() if key != "params"}

    def apply(
        self,
        params: Params,
        model_state: ModelState,
        image: jax.Array,
        *,
        train: bool | Trains = False,
        rng: jax.Array | None = None,
        start: str = "",
    ) -> tuple[Outputs, ModelState]:
        """An `ApplyFn` on normalised images f32 [B, H, W, C]; with `start`, on what that stage takes.

        Args:
          params, model_state, train, rng: see `ApplyFn`. What lies before `start` is not read: it may be missing.
          image: images, or `outputs[input_of(start)]`.
          start: a stage: those before it are not run, and their maps are not in the outputs. The rest is what it is in the
            whole network: the same parameters, the same modules in train mode, the same dropout for the same key.
            `functools.partial(model.apply, start=...)` is an `ApplyFn` too.
        """
        if not (start and self.input_of(start)) and image.shape[-1] != self.in_channels:
            raise JaxftError(f"{self.name} was made for {self.in_channels} channels, the image has {image.shape[-1]}")
        rngs = None if rng is None else {"dropout": rng}
        variables = {"params": params, **model_state}
        if not train:
            plain: Any = self.module.apply(variables, image, False, start, rngs=rngs)
            return plain, model_state
        outputs, new = self.module.apply(variables, image, train, start, rngs=rngs, mutable=list(model_state))
        return dict(outputs), {key: new.get(key, value) for key, value in model_state.items()}

    def input_of(self, stage: str) -> str:
        """The key of `outputs` that a stage takes: the stage before it, "features" for the head; "" is the image.

        Raises:
          JaxftError: no such stage.
        """
        if stage not in self.stages:
            known = ", ".join(self.stages)
            raise JaxftError(f"{self.name} has no stage '{stage}'{near(stage, self.stages)}; its stages are {known}")
        *before, head = self.stages
        if stage == head:
            return "features"
        place = before.index(stage)
        return before[place - 1] if place else ""

    def stage_of(self, path: str) -> str:
        """The stage a parameter belongs to."""
        for stage, patterns in self.stages.items():
            if any(tree.matches(pattern, path) for pattern in patterns):
                return stage
        raise JaxftError(f"'{path}' is no parameter of {self.name}")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a network is built. `make` takes num_classes, head, dtype, remat and what else `options` allows."""

    family: str
    make: Callable[..., nn.Module]
    stages: Callable[[], Mapping[str, tuple[str, ...]]]
    first_conv: str
    preprocessing: Preprocessing
    options: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Where weights are and what they are.

    Attributes:
      tag: name among the network's weights.
      source: `package:DIST/FILE` or a URL; see `jaxft.weights.fetch`.
      sha256: of the file, in full or its published first digits.
      convention: whose names the file has; see `jaxft.weights.tables`.
      num_classes: of the head in the file.
      preprocessing: what the weights were trained for.
      licence: of the weights, as published; "" where their publisher names none.
      accuracy: published ImageNet top-1 in percent, or None; `accuracy_source` says by whom.
    """

    tag: str
    source: str
    sha256: str
    convention: str
    num_classes: int
    preprocessing: Preprocessing
    licence: str
    accuracy: float | None
    accuracy_source: str


#: The Lite networks' input: size and what their authors' centre crop keeps, pixels (x - 127) / 128.
def _lite(size: int) -> Preprocessing:
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return Preprocessing(size, round(size / 0.875), "bicubic", mean, std)


def _architectures() -> dict[str, Architecture]:
    found: dict[str, Architecture] = {}
    for depth in vgg.DEPTHS:
        for norm in (False, True):
            found[f"vgg{depth}_bn" if norm else f"vgg{depth}"] = Architecture(
                "vgg",
                functools.partial(vgg.VGG, depth, norm),
                functools.partial(vgg.stages, depth, norm),
                "features/0/kernel",
                Preprocessing(),
                ("dropout",),
            )
    for depth in resnet.DEPTHS:
        found[f"resnet{depth}"] = Architecture(
            "resnet",
            functools.partial(resnet.ResNet, depth),
            resnet.stages,
            "conv1/kernel",
            Preprocessing(),
            ("dropout", "drop_path"),
        )
    for variant, size in ((0, 224), (1, 240), (2, 260)):
        found[f"efficientnet_lite{variant}"] = Architecture(
            "efficientnet_lite",
            functools.partial(efficientnet.EfficientNetLite, variant),
            efficientnet.stages,
            "conv_stem/kernel",
            _lite(size),
            ("dropout", "drop_path"),
        )
    return found


_REGISTRY = _architectures()


def architecture_of(name: str) -> Architecture:
    """The registry's entry.

    Raises:
      JaxftError: no such network.
    """
    if name not in _REGISTRY:
        raise JaxftError(f"no network is called '{name}'{near(name, _REGISTRY)} (`jaxft models` lists all)")
    return _REGISTRY[name]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that the glob `pattern` names."""
    return [name for name in _REGISTRY if fnmatch.fnmatchcase(name, pattern)]


def build(
    name: str,
    num_classes: int | None = None,
    *,
    head: str = "linear",
    in_channels: int = 3,
    dropout: float | None = None,
    drop_path: float | None = None,
    dtype: str = "float32",
    size: int | None = None,
    remat: bool = False,
) -> Model:
    """Builds a network without weights.

    Args:
      name: one of `list_models()`.
      num_classes: width of the logits; None is ImageNet's 1,000.
      head: "linear", or "mlp" (dense, ReLU, dense).
      in_channels: of the image.
      dropout, drop_path: rates in [0, 1); None is the network's own.
      dtype: "float32" or "bfloat16": what is computed in. Parameters are float32, logits too. "float64", for comparisons of
        gradients, needs JAX_ENABLE_X64.
      size: input size in pixels; None is the network's own.
      remat: keep less for the backward pass: what is inside a block (VGG: a stage) is computed again there. The same
        function and names for less memory and more time.

    Raises:
      JaxftError: no such network, or an option it does not have.
    """
    architecture = architecture_of(name)
    if head not in ("linear", "mlp"):
        raise JaxftError(f"head is '{head}', not 'linear' or 'mlp'")
    if dtype not in ("float32", "bfloat16", "float64"):
        raise JaxftError(f"dtype is '{dtype}', not 'float32', 'bfloat16' or 'float64'")
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise JaxftError("dtype 'float64' needs JAX's 64-bit mode: set JAX_ENABLE_X64=1")
    classes = 1000 if num_classes is None else num_classes
    if classes < 1 or in_channels < 1:
        raise JaxftError(f"num_classes ({classes}) and in_channels ({in_channels}) must be at least 1")
    if size is not None and size < 32:
        raise JaxftError(f"size is {size}: {name} halves an image five times, it needs at least 32 pixels")
    rates = {"dropout": dropout, "drop_path": drop_path}
    given: dict[str, Any] = {key: rate for key, rate in rates.items() if rate is not None}
    for key, rate in given.items():
        if key not in architecture.options:
            raise JaxftError(f"{name} has no {key}")
        if not 0 <= rate < 1:
            raise JaxftError(f"{key} is {rate}: it must lie in [0, 1)")
    module = architecture.make(num_classes=classes, head=head, dtype=jnp.dtype(dtype), remat=remat, **given)
    preprocessing = architecture.preprocessing.with_channels(in_channels)
    if size is not None:
        preprocessing = preprocessing.with_size(size)
    return Model(name, classes, in_channels, module, architecture.stages(), architecture.first_conv, preprocessing)


@functools.cache
def _records() -> dict[str, list[dict[str, Any]]]:
    """Written by scripts/read_pretrained.py from what the publishers' own packages say."""
    return json.loads((importlib.resources.files("jaxft.models") / "pretrained.json").read_text())


def pretrained_records(name: str) -> list[Pretrained]:
    """All pretrained weights known for a network, the default (`imagenet`) first."""
    architecture_of(name)
    found = []
    for record in _records().get(name, []):
        found.append(Pretrained(**{**record, "preprocessing": Preprocessing.from_json(record["preprocessing"])}))
    return found


def pretrained(name: str, tag: str) -> Pretrained:
    """The record of a network's weights.

    Raises:
      JaxftError: no such network or tag.
    """
    records = {record.tag: record for record in pretrained_records(name)}
    if tag not in records:
        raise JaxftError(f"{name} has no weights '{tag}'{near(tag, records)}; it has {', '.join(records) or 'none'}")
    return records[tag]
