"""LoRA and DoRA as Hugging Face's PEFT keeps them: a folder with `adapter_config.json` and `adapter_model.safetensors`.

PEFT has two matrices for each layer of torch; where jaxft packs several layers into one kernel, query, key and value, theirs
lie side by side: the `a`s as they are, the `b`s on a block diagonal.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxft import tree
from jaxft.adapters import Lora
from jaxft.adapters.lora import KERNEL, MAGNITUDE, A, B, column_norms
from jaxft.errors import JaxftError
from jaxft.typing import Params
from jaxft.weights.readers import read
from jaxft.weights.rules import Place, Rule, places, sources_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MAGNITUDE = ".lora_magnitude_vector"


@dataclasses.dataclass(frozen=True)
class Peft:
    """What a folder holds.

    Attributes:
      base: the network it is for, as the hub or a path names it.
      config: the rest of `adapter_config.json`.
      matrices: name of a layer -> its "lora_A", "lora_B" and, of DoRA, "magnitude".
      others: further tensors by name, those of `modules_to_save`: mostly the head.
    """

    base: str
    config: Mapping[str, Any]
    matrices: Mapping[str, Mapping[str, np.ndarray]]
    others: Mapping[str, np.ndarray]


def is_peft(folder: Path) -> bool:
    """Whether there is a PEFT adapter in a folder."""
    return (folder / CONFIG).is_file()


def read_peft(folder: str | Path) -> Peft:
    """Reads a folder.

    Raises:
      JaxftError: files that are missing or damaged, or another kind of adapter than LoRA and DoRA.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text())
        kind, base = str(config["peft_type"]), str(config["base_model_name_or_path"] or "")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise JaxftError(f"{folder / CONFIG} cannot be read ({error})") from error
    if kind != "LORA":
        raise JaxftError(f"{folder} holds an adapter of the kind {kind}: of PEFT's, LoRA and DoRA are read")
    matrices: dict[str, dict[str, np.ndarray]] = {}
    others = {}
    for name, tensor in read(folder / WEIGHTS).items():
        name = name.removeprefix(_PREFIX)
        layer, mark, which = name.partition(".lora_")
        if not mark:
            others[name] = tensor
        elif name.removesuffix(".weight").endswith(_MAGNITUDE):
            matrices.setdefault(layer, {})[MAGNITUDE] = tensor.ravel()
        elif which in ("A.weight", "B.weight"):
            matrices.setdefault(layer, {})[f"lora_{which[0]}"] = tensor
        else:
            raise JaxftError(f"{folder / WEIGHTS}: '{name}' is no matrix of LoRA that jaxft knows")
    for layer, found in matrices.items():
        if not {"lora_A", "lora_B"} <= found.keys():
            raise JaxftError(f"{folder / WEIGHTS}: of '{layer}' one of lora_A and lora_B is missing")
    if not matrices:
        raise JaxftError(f"{folder / WEIGHTS} holds no matrices of LoRA")
    return Peft(base, config, matrices, others)


def from_peft(found: Peft, rules: Sequence[Rule], params: Params) -> tuple[Lora, Params]:
    """The adapter and its parameters.

    The scales of PEFT are multiplied into `lora_b`, so that alpha is the rank everywhere.

    Args:
      found: of `read_peft`.
      rules: the table of the network and the convention of the names.
      params: the network's own; only DoRA looks at more than shapes.

    Raises:
      JaxftError: layers the network does not have, or shapes that do not fit.
    """
    where = places([f"{layer}.weight" for layer in found.matrices], rules)
    if unknown := [layer for layer in found.matrices if f"{layer}.weight" not in where]:
        raise JaxftError(f"{len(unknown)} layers of the adapter are not of this network, '{unknown[0]}' first")
    by_kernel: dict[str, dict[int, str]] = {}
    for name, place in where.items():
        by_kernel.setdefault(place.path.removeprefix("params/"), {})[place.part] = name.removesuffix(".weight")
    own = tree.flatten(params)
    leaves: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    decomposed = bool(found.config.get("use_dora"))
    for path, layers in by_kernel.items():
        if path not in own or not path.endswith(f"/{KERNEL}"):
            raise JaxftError(f"'{next(iter(layers.values()))}' is {path} here, which has no kernel that can be adapted")
        module, place = path.removesuffix(f"/{KERNEL}"), where[f"{next(iter(layers.values()))}.weight"]
        leaves[f"{module}/{A}"], leaves[f"{module}/{B}"], magnitudes = _joined(found, layers, place, tuple(own[path].shape))
        ranks[module] = leaves[f"{module}/{A}"].shape[-1]
        if decomposed:
            norms = np.array(column_norms(jnp.asarray(own[path], jnp.float32)))
            for columns, magnitude in magnitudes:
                norms[columns] = magnitude
            leaves[f"{module}/{MAGNITUDE}"] = norms
    adapter = Lora(ranks, {module: float(rank) for module, rank in ranks.items()}, decomposed=decomposed)
    return adapter, tree.unflatten(leaves)


def _joined(
    found: Peft, layers: Mapping[int, str], place: Place, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, list[tuple[slice, np.ndarray]]]:
    """`a`, `b` and the magnitudes, by columns, of one kernel out of those of the layers that it packs: part -> layer."""
    parts = len(place.rule.sources)
    op, width = place.rule.op.of_each or place.rule.op, shape[-1] // parts
    ranks = {layer: len(found.matrices[layer]["lora_A"]) for layer in layers.values()}
    left, b, row = [], np.zeros((sum(ranks.values()), shape[-1]), np.float32), 0
    magnitudes: list[tuple[slice, np.ndarray]] = []
    for part, layer in sorted(layers.items()):
        matrices, rank, columns = found.matrices[layer], ranks[layer], slice(part * width, (part + 1) * width)
        try:
            left.append(np.asarray(op.forward(matrices["lora_A"]), np.float32))
            b[row : row + rank, columns] = matrices["lora_B"].reshape(width, rank).T * _scale(found, layer, rank)
            if left[-1].shape != (*shape[:-1], rank):
                raise ValueError(left[-1].shape)
        except ValueError as error:
            shapes = [list(matrices[name].shape) for name in ("lora_A", "lora_B")]
            raise JaxftError(f"'{layer}' has matrices {shapes[0]} and {shapes[1]}, which do not fit its layer") from error
        if MAGNITUDE in matrices:
            magnitudes.append((columns, matrices[MAGNITUDE]))
        row += rank
    return np.concatenate(left, -1), b, magnitudes


def _scale(found: Peft, layer: str, rank: int) -> float:
    alpha = _pattern(found.config.get("alpha_pattern"), layer, found.config.get("lora_alpha", rank))
    return float(alpha / (math.sqrt(rank) if found.config.get("use_rslora") else rank))


def _pattern(patterns: Mapping[str, float] | None, layer: str, default: float) -> float:
    """PEFT's own rule: the first key that ends the layer's name, at a dot, counts. Regular expressions are not read."""
    for key, value in (patterns or {}).items():
        if layer == key or layer.endswith(f".{key}"):
            return value
    return default


def to_peft(adapter: Lora, adapters: Params, rules: Sequence[Rule], base: str) -> Peft:
    """What PEFT reads. Layers that are packed here share `a`; each has its columns of `b`.

    Args:
      adapter, adapters: of a network.
      rules: its table for the convention whose names PEFT is to find.
      base: what PEFT is to call the network.

    Raises:
      JaxftError: a kernel that has no counterpart there.
    """
    flat = tree.flatten(adapters)
    matrices: dict[str, dict[str, np.ndarray]] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for module, rank in adapter.ranks.items():
        rule, names = sources_of(f"params/{module}/{KERNEL}", rules)
        op = rule.op.of_each or rule.op
        a, b = np.asarray(flat[f"{module}/{A}"], np.float32), np.asarray(flat[f"{module}/{B}"], np.float32)
        their_a = np.ascontiguousarray(op.inverse(a))
        for name, columns in zip(names, np.split(b, len(names), -1), strict=True):
            layer = name.removesuffix(".weight")
            if layer == name:
                raise JaxftError(f"PEFT cannot adapt '{name}': it is no layer of its own there")
            their_b = np.ascontiguousarray(columns.T).reshape(-1, rank, *(1,) * (their_a.ndim - 2))
            matrices[layer] = {"lora_A": their_a, "lora_B": their_b}
            ranks[layer], alphas[layer] = rank, adapter.alphas[module]
        if adapter.decomposed:
            for name, part in zip(names, np.split(np.asarray(flat[f"{module}/{MAGNITUDE}"]), len(names)), strict=True):
                shape = (1, -1, 1, 1) if their_a.ndim == 4 else (-1,)
                matrices[name.removesuffix(".weight")][MAGNITUDE] = part.reshape(shape)
    layers = list(matrices)
    r, alpha = ranks[layers[0]], alphas[layers[0]]
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {layer: rank for layer, rank in ranks.items() if rank != r},
        "alpha_pattern": {layer: value for layer, value in alphas.items() if value != alpha},
        "target_modules": layers,
        "use_dora": adapter.decomposed,
        "use_rslora": adapter.rank_stabilized,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    return Peft(base, config, matrices, {})


def peft_files(found: Peft) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`adapter_config.json` and the tensors of `adapter_model.safetensors`."""
    tensors = {f"{_PREFIX}{name}": np.asarray(tensor) for name, tensor in found.others.items()}
    for layer, matrices in found.matrices.items():
        for which, tensor in matrices.items():
            tensors[f"{_PREFIX}{layer}{_MAGNITUDE if which == MAGNITUDE else f'.{which}.weight'}"] = tensor
    saved = sorted({name.rpartition(".")[0] for name in found.others})
    config = {**found.config, "base_model_name_or_path": found.base, "modules_to_save": saved or None}
    return config, tensors
