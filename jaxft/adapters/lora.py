"""Low-rank adaptation of dense, attention and convolution kernels: LoRA (Hu et al., 2022, arXiv:2106.09685), rank-stabilised
(Kalajdzievski, 2023, arXiv:2312.03732) and weight-decomposed (DoRA, Liu et al., 2024, arXiv:2402.09353)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.typing import Around, Params

KERNEL, A, B, MAGNITUDE = "kernel", "lora_a", "lora_b", "magnitude"


@dataclasses.dataclass(frozen=True)
class Lora:
    """A kernel W [..., I, O] becomes `W + scale * a @ b`, with `lora_a` [..., I, r] and `lora_b` [r, O].

    For a convolution `a` is one of the kernel's size to r channels and `b` one of size 1, as in PEFT. The product is taken in
    f32, whatever the network computes in. `b` starts with zeros: the network is what it was.

    Attributes:
      ranks: '/' path of each adapted kernel's module -> r.
      alphas: the same -> alpha; `scale` is alpha / r, or alpha / sqrt(r) where `rank_stabilized`.
      rank_stabilized: see there.
      decomposed: DoRA: with `magnitude` [O], which starts as the norms of W's columns, W becomes
        `magnitude * V / |V|` of `V = W + scale * a @ b`, |V| the norms of V's columns. As PEFT and the paper (4.3) have it, no
        gradient goes through |V|.
    """

    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rank_stabilized: bool = False
    decomposed: bool = False

    @property
    def name(self) -> str:
        return "dora" if self.decomposed else "lora"

    def scale(self, module: str) -> float:
        """What `a @ b` is multiplied with at a module's '/' path."""
        rank = self.ranks[module]
        return self.alphas[module] / (math.sqrt(rank) if self.rank_stabilized else rank)

    def init(self, rng: jax.Array, params: Params) -> Params:
        """`a` uniform in +-1 / sqrt(inputs), as PEFT draws it (Kaiming with a = sqrt 5); `b` zeros.

        Args:
          rng: a key.
          params: the network's own, arrays or tracers.
        """
        flat, found = tree.flatten(params), {}
        for number, (module, rank) in enumerate(self.ranks.items()):
            kernel = flat[f"{module}/{KERNEL}"]
            bound = 1 / math.sqrt(math.prod(kernel.shape[:-1]))
            key = jax.random.fold_in(rng, number)
            found[f"{module}/{A}"] = jax.random.uniform(key, (*kernel.shape[:-1], rank), jnp.float32, -bound, bound)
            found[f"{module}/{B}"] = jnp.zeros((rank, kernel.shape[-1]), jnp.float32)
            if self.decomposed:
                found[f"{module}/{MAGNITUDE}"] = column_norms(jnp.asarray(kernel, jnp.float32))
        return tree.unflatten(found)

    def weights(self, params: Params, adapters: Params) -> Params:
        """The kernels that the network computes with: those of adapted modules merged, all else as it is."""
        flat, added = tree.flatten(params), tree.flatten(adapters)
        for module in self.ranks:
            path = f"{module}/{KERNEL}"
            if path in flat:  # stages that do not run may be left out
                flat[path] = self._merged(module, flat[path], added)
        return tree.unflatten(flat)

    def _merged(self, module: str, kernel: jax.Array, added: Mapping[str, jax.Array]) -> jax.Array:
        merged = kernel + self.delta(module, added)
        if not self.decomposed:
            return merged
        norms = jax.lax.stop_gradient(column_norms(merged))
        return merged * (added[f"{module}/{MAGNITUDE}"] / norms)

    def delta(self, module: str, added: Mapping[str, jax.Array]) -> jax.Array:
        """`scale * a @ b` of a module, of its kernel's shape.

        Args:
          module: '/' path.
          added: the adapters, flat.
        """
        a, b = added[f"{module}/{A}"], added[f"{module}/{B}"]
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST) * self.scale(module)

    def around(self, adapters: Params) -> Mapping[str, Around]:
        return {}


def lora(
    model: Any,
    *,
    rank: int | Mapping[str, int] = 8,
    alpha: float | Mapping[str, float] | None = None,
    modules: str = "",
    rank_stabilized: bool = False,
) -> Lora:
    """LoRA for a network's kernels.

    Args:
      model: the network.
      rank: of all, or one a glob over modules, the first that matches counts: `{"blocks/*/attn": 16, "**": 4}`. 0 leaves a
        kernel alone, as does no glob that matches.
      alpha: likewise; None is the rank, so that `scale` is 1.
      modules: globs, with commas between them, over the modules to adapt; the head, which is new, is never among them. "" are
        all but grouped convolutions, depthwise ones say, whose kernels are hardly larger than the factors.
      rank_stabilized: see `Lora`.

    Raises:
      JaxftError: a glob that matches no kernel, or a rank that is no whole number of at least 0.
    """
    return _low_rank(model, rank, alpha, modules, rank_stabilized=rank_stabilized)


def dora(
    model: Any, *, rank: int | Mapping[str, int] = 8, alpha: float | Mapping[str, float] | None = None, modules: str = ""
) -> Lora:
    """DoRA for a network's kernels: options and errors as of `lora`."""
    return _low_rank(model, rank, alpha, modules, decomposed=True)


def _low_rank(
    model: Any,
    rank: int | Mapping[str, int],
    alpha: float | Mapping[str, float] | None,
    modules: str,
    *,
    rank_stabilized: bool = False,
    decomposed: bool = False,
) -> Lora:
    params, _ = model.shapes
    kernels = [
        path.removesuffix(f"/{KERNEL}")
        for path in tree.paths(params)
        if path.endswith(f"/{KERNEL}") and model.stage_of(path) != "head"
    ]
    globs = [glob.strip() for glob in modules.split(",") if glob.strip()]
    chosen = {module for glob in globs for module in tree.find(glob, kernels)}
    if not globs:
        chosen = {module for module in kernels if module not in model.called or model.called[module].groups == 1}
    ranks = _value_of(rank, kernels, "rank")
    for module, value in ranks.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise JaxftError(f"rank of '{module}' is {value!r}: it must be a whole number of at least 0")
    adapted = {module: ranks[module] for module in kernels if module in chosen and ranks.get(module)}
    if not adapted:
        raise JaxftError(f"rank={rank!r} with modules='{modules}' leaves no kernel to adapt")
    alphas = _value_of(adapted if alpha is None else alpha, list(adapted), "alpha")
    if left := [module for module in adapted if module not in alphas]:
        raise JaxftError(f"alpha has no glob that matches '{left[0]}': add '**'")
    return Lora(adapted, {module: float(value) for module, value in alphas.items()}, rank_stabilized, decomposed)


def merge(adapter: Lora, params: Params, adapters: Params) -> Params:
    """W + scale * a @ b: a function of the two trees, which stay as they are. To go back is to drop the result."""
    return adapter.weights(params, adapters)


def unmerge(adapter: Lora, merged: Params, adapters: Params) -> Params:
    """What was merged, where only that is left: `W' - scale * a @ b`, W but for one rounding of W'.

    Raises:
      JaxftError: DoRA, whose norms are lost in what is merged.
    """
    if adapter.decomposed:
        raise JaxftError("what DoRA merged cannot be taken apart: keep the network's own parameters")
    flat, added = tree.flatten(merged), tree.flatten(adapters)
    for module in adapter.ranks:
        flat[f"{module}/{KERNEL}"] = flat[f"{module}/{KERNEL}"] - adapter.delta(module, added)
    return tree.unflatten(flat)


def _value_of(given: Any, modules: Sequence[str], what: str) -> dict[str, Any]:
    """Module -> its value: one for all, or of the first glob that names it, where `given` is by glob. Others are left out.

    Raises:
      JaxftError: a glob that names no module.
    """
    if not isinstance(given, Mapping):
        return dict.fromkeys(modules, given)
    found: dict[str, Any] = {}
    for glob, value in given.items():
        try:
            named = [glob] if glob in modules else tree.find(glob, modules)
        except JaxftError as error:
            raise JaxftError(f"{what}: {error}") from None
        for module in named:
            found.setdefault(module, value)
    return found


def column_norms(kernel: jax.Array) -> jax.Array:
    """[O] of a kernel [..., O]."""
    return jnp.sqrt(jnp.square(kernel).sum(tuple(range(kernel.ndim - 1))))
