"""The vocabulary of jaxft: what its functions take and give, with shapes.

`B` is the batch size, `H`, `W`, `C` height, width and channels of an image (always NHWC), `K` the number of classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

#: Parameters: nested dicts with string keys, leaves f32 arrays. A leaf's name is its '/' path: `layer1/0/conv1/kernel`.
Params = Mapping[str, Any]

#: What the network carries from step to step without a gradient: `{"batch_stats": {...}}` or `{}`. The statistics of a
#: module stand under the module's own path: `batch_stats/layer1/0/bn1/mean` beside the parameter `layer1/0/bn1/scale`.
ModelState = Mapping[str, Any]

#: A static tree of Python bools shaped like the parameters: True where a leaf is trained.
Mask = Mapping[str, Any]

#: `image` [B, H, W, C]; `label` [B] int32 (classes), [B, K] f32 (multi-label or soft) or [B] f32 (regression);
#: optional `mask` [B] f32, 1 for an example and 0 for padding, or any non-negative weight of the example;
#: optional `index` [B] int32, the example's position in its source. Further keys are the user's own.
Batch = Mapping[str, jax.Array]

#: `logits` [B, K] f32, `features` [B, D] (what the head sees) and one feature map a stage under the stage's name:
#: [B, H, W, C], or of a transformer tokens [B, 1 + N, D], the class token first.
Outputs = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Trains:
    """Which modules are in train mode, where that is not all of them: static, hashable, derived from one mask.

    A module is in train mode if any parameter below it is trained. A frozen BatchNorm uses its running statistics and
    leaves them alone; dropout and stochastic depth of a frozen part are off.

    Attributes:
      prefixes: '/' paths of all modules with a trained leaf below them, the root `""` included; None is all modules.
      norm_parts: into how many equal parts of a batch, in order, BatchNorm takes it, each with statistics of its own.
      norm_axis: a mapped axis (of `jax.pmap`, `jax.shard_map`) over which BatchNorm's statistics go; "" is none.
      off: '/' paths of modules that are not, whatever is trained below them.
    """

    prefixes: frozenset[str] | None
    norm_parts: int = 1
    norm_axis: str = ""
    off: frozenset[str] = frozenset()

    def __call__(self, path: str) -> bool:
        """Whether the module at '/' path `path` is in train mode."""
        return (self.prefixes is None or path in self.prefixes) and path not in self.off

    def __bool__(self) -> bool:
        return self.prefixes is None or bool(self.prefixes)


#: What is done around a module of a network: `(call, x) -> y`, where `call(x)` is the module itself on an array.
Around = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]


class Adapter(Protocol):
    """Few new parameters beside a network's own, which stay as they are. Pure; see `jaxft.adapters`.

    `params` are the network's own, `adapters` the new ones, below the paths of the modules they belong to.
    """

    @property
    def name(self) -> str:
        """Its kind."""
        ...

    def init(self, rng: jax.Array, params: Params) -> Params:
        """The adapters before the first step."""
        ...

    def weights(self, params: Params, adapters: Params) -> Params:
        """The parameters the network computes with. Stages that do not run may be missing in both."""
        ...

    def around(self, adapters: Params) -> Mapping[str, Around]:
        """'/' path of a module -> what is done around it; {} for adapters that `weights` alone says."""
        ...


class ApplyFn(Protocol):
    """All that training knows of a network. Pure.

    `image` is whatever the network takes: normalised images f32 [B, H, W, C], raw pixels where the network is wrapped by
    `jaxft.preprocessing.on_pixels`, an inner map or features where it starts at a stage (`Model.apply` with `start`).
    `train` is False (inference), True (everything trains) or a `Trains`. `rng` may be None where `train` is False.
    Returns outputs and the new model state (the given one, where nothing changed).
    """

    def __call__(
        self, params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None
    ) -> tuple[Outputs, ModelState]: ...


#: A loss: `(outputs, batch) -> [B]`, one number an example, neither masked nor averaged: the library does both.
#: A second form takes any of `forward`, `params`, `average`, `teacher` and `anchor` by name, for losses that need several
#: passes, the parameters themselves, or another network: `forward(image, train=..., params=...) -> Outputs`; the full
#: parameters; the same with running averages in the place of trained leaves, as they were before the step (in an evaluation,
#: which is of the averages, `params` themselves); `forward(image, params=average)` has averaged statistics too.
#: `teacher(image) -> Outputs` is a frozen network on the same pixels, `anchor` is `{"params": the trained leaves before the
#: first step, "importance": how much each of them matters, or {}}`: both are None in an evaluation, whose loss is without them.
LossFn = Callable[..., jax.Array]

#: A metric accumulator: a clu `Collection` class.
Metrics = Any
