"""Freezing: one spec gives one static mask, and everything else follows from the mask."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.typing import ApplyFn, Mask, ModelState, Outputs, Params, Trains

Stages = Mapping[str, tuple[str, ...]]

#: Where the parameters of `jaxft.adapters` stand in a network's.
ADAPTERS = "adapters"
#: Terms that name these: the kinds of adapters.
ADAPTER_TERMS = ("lora", "dora", "ssf", "bottleneck", "prompt")
#: The term of what no mask names: the running statistics of BatchNorms.
STATISTICS = "statistics"


@dataclasses.dataclass(frozen=True)
class FreezeSpec:
    """What trains: a leaf does if a term of `train` names it and no term of `freeze` does.

    A term is

    - `full`, `head`, `from:STAGE` (that stage and all after it), or the name of a stage;
    - `norms`, scales and biases of all normalisations, or `biases`, all biases (BitFit, Ben Zaken et al., 2022);
    - `lora`, `dora`, `ssf`, `bottleneck` or `prompt`: the adapters of a network that has such (`jaxft.adapters`), which no term
      above names;
    - a glob over '/' paths (see `jaxft.tree`).

    Terms are put together with `+` or commas: `norms+head`, `lora+head`. `statistics`, in `freeze` alone, names no leaf:
    BatchNorms normalise with their running statistics, which stay, also where scale and bias train. No mask can say that: a
    loop of your own trains `keep_statistics(apply)`.
    """

    train: tuple[str, ...] = ("full",)
    freeze: tuple[str, ...] = ()

    @classmethod
    def parse(cls, train: str | Sequence[str], freeze: str | Sequence[str] = ()) -> FreezeSpec:
        """Reads terms from sequences, or strings with `+` or commas between them.

        Raises:
          JaxftError: no term in `train`.
        """
        spec = cls(_terms(train), _terms(freeze))
        if not spec.train:
            raise JaxftError("nothing is to be trained: give 'full', 'head', 'from:STAGE', stage names or globs")
        if STATISTICS in spec.train:
            raise JaxftError("'statistics' can only be frozen: those of a BatchNorm that trains move without being named")
        return spec

    @property
    def statistics_stay(self) -> bool:
        """Whether `freeze` has the statistics of BatchNorms."""
        return STATISTICS in self.freeze


def _terms(given: str | Sequence[str]) -> tuple[str, ...]:
    parts: Iterable[str] = re.split(r"[,+]", given) if isinstance(given, str) else given
    return tuple(part.strip() for part in parts if part.strip())


def make_mask(spec: FreezeSpec, params: Params, stages: Stages) -> Mask:
    """Derives the mask of a spec.

    Args:
      spec: what trains.
      params: the full parameters, arrays or abstract.
      stages: stage name -> globs, in the order of the network, the head last.

    Returns:
      A tree of Python bools shaped like `params`.

    Raises:
      JaxftError: a term that names nothing (with near misses), or a spec that freezes everything.
    """
    paths = tree.paths(params)
    chosen = set().union(*(_named(term, paths, stages) for term in spec.train))
    leaves = (term for term in spec.freeze if term != STATISTICS)
    frozen: set[str] = set().union(*(_named(term, paths, stages) for term in leaves))
    if not chosen - frozen:
        raise JaxftError(f"train={','.join(spec.train)} with freeze={','.join(spec.freeze)} leaves nothing to train")
    return tree.map_with_path(lambda path, _: path in chosen and path not in frozen, params)


def _named(term: str, paths: list[str], stages: Stages) -> set[str]:
    own = [path for path in paths if not path.startswith(f"{ADAPTERS}/")]
    if term in ADAPTER_TERMS:
        if len(own) == len(paths):
            raise JaxftError(f"'{term}': this network has no adapters: give it some with jaxft.adapters.with_adapter")
        return {*paths} - {*own}
    if term == "full":
        return set(own)
    if term == "norms":
        return _some(_norms(own), "this network has no normalisation to train")
    if term == "biases":
        return _some({path for path in own if path.rpartition("/")[2] == "bias"}, "this network has no biases")
    if term.startswith("from:"):
        start = term.removeprefix("from:")
        if start not in stages:
            raise JaxftError(f"'{term}': no stage is called '{start}'{near(start, stages)}; the stages are {', '.join(stages)}")
        names = list(stages)
        return set().union(*(_named(name, paths, stages) for name in names[names.index(start) :]))
    if term in stages:
        return {path for pattern in stages[term] if not pattern.startswith(ADAPTERS) for path in tree.find(pattern, own)}
    try:
        return set(tree.find(term, paths))
    except JaxftError as error:
        raise JaxftError(f"{error}; the stages are {', '.join(stages)}") from None


def _norms(paths: list[str]) -> set[str]:
    """The parameters of modules that have a scale or a bias, and nothing else."""
    leaves: dict[str, set[str]] = {}
    for path in paths:
        module, _, leaf = path.rpartition("/")
        leaves.setdefault(module, set()).add(leaf)
    return {path for path in paths if leaves[path.rpartition("/")[0]] <= {"scale", "bias"}}


def _some(found: set[str], nothing: str) -> set[str]:
    if not found:
        raise JaxftError(nothing)
    return found


def trains(mask: Mask, *, norm_parts: int = 1, norm_axis: str = "") -> Literal[True] | Trains:
    """Which modules are in train mode: True where every leaf is trained and nothing else is asked for, else a `Trains`.

    Args:
      mask: what is trained.
      norm_parts, norm_axis: see `Trains`.
    """
    flat = tree.flatten(mask)
    if all(flat.values()) and norm_parts == 1 and not norm_axis:
        return True
    prefixes = {""}
    for path, trained in flat.items():
        if trained:
            parts = path.split("/")
            prefixes |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    return Trains(frozenset(prefixes), norm_parts, norm_axis)


def keep_statistics(apply: ApplyFn) -> ApplyFn:
    """The network whose modules that have statistics use the running ones, and leave them alone, in train mode too."""

    def kept(
        params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None = None
    ) -> tuple[Outputs, ModelState]:
        if train:
            norms = frozenset(path.partition("/")[2].rpartition("/")[0] for path in tree.paths(model_state))
            train = dataclasses.replace(train if isinstance(train, Trains) else Trains(None), off=norms)
        return apply(params, model_state, image, train=train, rng=rng)

    return kept


def freeze_updates(tx: optax.GradientTransformation, mask: Mask) -> optax.GradientTransformation:
    """For loops in plain optax on the full tree: `tx` sees and remembers only trained leaves, frozen ones get zeros.

    Unlike `optax.masked`, which lets the raw gradients of the other leaves through, updates of frozen leaves are zero; and
    clipping or a norm inside `tx` does not see them. Equal, bit for bit, to training the trainable subtree alone.
    """

    def init(params: Params) -> Any:
        return tx.init(tree.split(params, mask)[0])

    def update(updates: Any, state: Any, params: Params | None = None) -> tuple[Any, Any]:
        trained, frozen = tree.split(updates, mask)
        own = None if params is None else tree.split(params, mask)[0]
        trained, state = tx.update(trained, state, own)
        flat = {**tree.flatten(trained), **tree.flatten(jax.tree.map(jnp.zeros_like, frozen))}
        return tree.unflatten({path: flat[path] for path in tree.flatten(updates)}), state

    return optax.GradientTransformation(init, update)
