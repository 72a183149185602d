"""What a loss reads beside the network it trains, and no step changes: a teacher, and an anchor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.finetuned import FineTuned
from jaxft.losses import wanted
from jaxft.parallel import put
from jaxft.typing import ApplyFn, LossFn, Mask, ModelState, Outputs, Params, Trains
from jaxft.weights import read
from jaxft.workdir import load_run

#: jax.image's names of `jaxft.preprocessing.INTERPOLATIONS`.
_RESIZE = {"bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos3", "nearest": "nearest"}


@dataclasses.dataclass(frozen=True)
class Fixed:
    """See the module.

    Attributes:
      teacher: a network that was trained before, or None.
      anchored: whether the loss takes an anchor: where the trained leaves began.
      importance: of these, f32 by '/' path, non-negative; {} where the config names no file.
    """

    teacher: FineTuned | None = None
    anchored: bool = False
    importance: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def teacher_apply(self) -> ApplyFn | None:
        """The teacher on the pixels that the trained network sees, which are resized where the teacher's size is another."""
        if self.teacher is None:
            return None
        apply, preprocessing = self.teacher.apply, self.teacher.model.preprocessing

        def answer(
            params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None
        ) -> tuple[Outputs, ModelState]:
            side = preprocessing.size
            if image.shape[1:3] != (side, side):
                shape, kind = (image.shape[0], side, side, image.shape[3]), _RESIZE[preprocessing.interpolation]
                image = jnp.clip(jax.image.resize(image.astype(jnp.float32), shape, kind, antialias=True), 0, 255)
            return apply(params, model_state, image, train=train, rng=rng)

        return answer

    def shapes(self, params: Params, mask: Mask) -> Any:
        """`TrainState.fixed` as shapes, for a phase's parameters (arrays or shapes) and mask; None for nothing."""
        found = self._tree(params, mask, lambda path, leaf: leaf)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found) or None

    def arrays(self, first: Params, mask: Mask, places: Any) -> Any:
        """`TrainState.fixed` where it is to lie.

        Args:
          first: the parameters before the run's first step; read where `anchored`, and not to be used again: the step donates
            them.
          mask: of the phase.
          places: the sharding of each leaf of `shapes`.
        """
        # What is not in the file is free.
        weigh = lambda path, leaf: self.importance.get(path, np.zeros(leaf.shape, np.float32))
        found = self._tree(first, mask, weigh)
        return put(found, places) if found else None

    def _tree(self, params: Params, mask: Mask, importance: Callable[[str, Any], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.teacher is not None:
            found["teacher"] = (dict(self.teacher.params), dict(self.teacher.model_state))
        if self.anchored:
            trained = tree.split(params, mask)[0]
            weighed = tree.map_with_path(importance, trained) if self.importance else {}
            found["anchor"] = {"params": trained, "importance": weighed}
        return found

    def check(self, params: Params) -> None:
        """Raises JaxftError where the importances are not those of a network with these parameters (arrays or shapes)."""
        flat = tree.flatten(params)
        for path, leaf in self.importance.items():
            if path not in flat:
                raise JaxftError(f"config.anchor.importance names '{path}'{near(path, flat)}, which the network does not have")
            if leaf.shape != flat[path].shape:
                was, wanted = list(leaf.shape), list(flat[path].shape)
                raise JaxftError(f"config.anchor.importance has {was} for '{path}', and the network {wanted}: it is another's")

    @property
    def digests(self) -> dict[str, str]:
        """A hash of each thing that is read from elsewhere, by the key that says where."""
        found = {}
        if self.teacher is not None:
            leaves = {**tree.flatten(self.teacher.params), **tree.flatten(dict(self.teacher.model_state))}
            found["config.teacher.run"] = tree.digest(leaves)
        if self.importance:
            found["config.anchor.importance"] = tree.digest(self.importance)
        return found

    def classes_among(self, class_names: Sequence[str]) -> np.ndarray | None:
        """Which of `class_names` each class of the teacher is, -1 for none; None without a teacher."""
        if self.teacher is None:
            return None
        places = {name: place for place, name in enumerate(class_names)}
        return np.array([places.get(name, -1) for name in self.teacher.class_names], np.int64)


def read_fixed(config: ConfigDict, loss: LossFn) -> Fixed:
    """What the loss of a config takes, from where the config says.

    Raises:
      JaxftError: a loss that takes a teacher and no `config.teacher.run`, or the other way round; no run there; a teacher for
        another number of channels; a file of importances that is none.
    """
    takes, run = wanted(loss), config.teacher.run
    name = config.loss.name or "the task's own"
    if "teacher" in takes and not run:
        raise JaxftError(f"config.loss.name '{name}' learns from a teacher: set config.teacher.run to the workdir of its run")
    if run and "teacher" not in takes:
        raise JaxftError(
            f"config.teacher.run is given, and the loss ({name}) takes no teacher: set config.loss.name to 'distillation' or "
            "'feature_distillation'"
        )
    teacher = load_run(run) if run else None
    if teacher is not None:  # on the host: the step is given copies, which it donates
        params, model_state = jax.device_get((teacher.params, teacher.model_state))
        teacher = dataclasses.replace(teacher, params=params, model_state=model_state)
    if teacher is not None and teacher.model.in_channels != config.model.in_channels:
        raise JaxftError(
            f"the teacher sees {teacher.model.in_channels} channels, the network {config.model.in_channels}: they must agree"
        )
    anchored = "anchor" in takes
    if config.anchor.importance and not anchored:
        raise JaxftError(f"config.anchor.importance is given, and the loss ({name}) takes no `anchor`: set config.loss.name")
    importance = read_importance(Path(config.anchor.importance)) if config.anchor.importance else {}
    return Fixed(teacher, anchored, importance)


def read_importance(path: Path) -> dict[str, np.ndarray]:
    """How much each parameter matters, by '/' path: a file of weights (.safetensors, .npz).

    Raises:
      JaxftError: no such file, or a number that is negative or not finite.
    """
    found = {name: np.asarray(leaf, np.float32) for name, leaf in read(path).items()}
    for name, leaf in found.items():
        if not np.isfinite(leaf).all() or (leaf < 0).any():
            raise JaxftError(f"{path}: the importance of '{name}' is not finite, or negative")
    return found
