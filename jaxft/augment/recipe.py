"""Augmentations of a batch, as a list says them, and where each runs.

A crop that stands first is taken while a picture is read, out of its full resolution. All else is one function of a batch, to
be traced into the training step:

1. changes of place, composed into one matrix and one look into the picture (no look where flips and crops alone are asked for),
2. changes of pixels, in the order of the list, those of the user's own among them,
3. labels, and mixing of examples.

An example's randomness depends on (seed, shown, index) and the place in the list; `shown` is how often it was shown before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.augment import geometry, mix, pixels, policies
from jaxft.augment.warp import warp
from jaxft.decoding.window import Window
from jaxft.errors import JaxftError
from jaxft.losses import import_function
from jaxft.typing import Batch

# Apart from dropout and all else that a run draws.
_USE = 0x6A61


#: What changes places, by what draws its matrix; what changes pixels.
MATRICES: dict[str, Callable[..., jax.Array]] = {
    "random_flip": geometry.flip_matrix,
    "random_rotation": geometry.rotation_matrix,
    "random_scale": geometry.scale_matrix,
    "random_affine": geometry.affine_matrix,
    "random_perspective": geometry.perspective_matrix,
}
PIXELS: dict[str, Callable[..., jax.Array]] = {
    function.__name__: function
    for function in (
        pixels.random_color,
        pixels.random_grey,
        pixels.random_blur,
        pixels.random_noise,
        pixels.random_posterize,
        pixels.random_solarize,
        pixels.random_equalize,
        pixels.random_autocontrast,
        pixels.random_invert,
        pixels.random_sharpness,
        pixels.random_erasing,
        policies.rand_augment,
        policies.trivial_augment,
        policies.aug_mix,
    )
}
#: What moves pixels without looking between them.
_EXACT = ("random_flip", "random_crop")
_MIXING = ("mixup", "cutmix")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One entry of a list: its name, its options, and its place in the list."""

    name: str
    options: tuple[tuple[str, Any], ...]
    place: int

    def option(self, name: str) -> Any:
        return dict(self.options)[name]

    @property
    def change(self) -> Callable[..., jax.Array] | None:
        """What it does to pixels, `(key, image, ...) -> image`: of `PIXELS`, or the user's own, "module:function"."""
        return import_function(self.name, "the augmentation") if ":" in self.name else PIXELS.get(self.name)

    def __str__(self) -> str:
        given = ", ".join(f"{key}={value!r}" for key, value in self.options)
        return f"{self.name}({given})" if given else self.name


@dataclasses.dataclass(frozen=True)
class Augment:
    """A list of augmentations; see the module. Make it with `parse`.

    Attributes:
      window: what is taken of a picture while it is read.
      operations: what is left to the device, in the order of the list.
      interpolation: of the one warp, "bilinear" or "nearest".
      fill: what lies outside the picture, 0 to 255.
    """

    window: Window = dataclasses.field(default_factory=Window)
    operations: tuple[Operation, ...] = ()
    interpolation: str = "bilinear"
    fill: float = 0.0

    @property
    def random(self) -> bool:
        """Whether an example looks different from epoch to epoch."""
        return self.window.scale is not None or bool(self.operations)

    @property
    def mixes_examples(self) -> bool:
        """Whether examples of a batch are mixed: classes [B] become shares [B, K]."""
        return any(one.name in _MIXING for one in self.operations)

    @property
    def changes_labels(self) -> bool:
        """Whether labels are flipped or mixed."""
        return self.mixes_examples or any(one.name == "random_label_flip" for one in self.operations)

    def __str__(self) -> str:
        crop = f"random_resized_crop(scale={self.window.scale}, ratio={self.window.ratio})"
        return ", ".join([*([crop] if self.window.scale else []), *map(str, self.operations)]) or "none"

    def check(self, channels: int) -> None:
        """Raises JaxftError where an operation cannot work: options of another kind, colours of five channels."""
        image = jax.ShapeDtypeStruct((self.window.side(8), self.window.side(8), channels), jnp.uint8)
        try:
            jax.eval_shape(lambda image: self.image(jax.random.key(0), image, 8), image)
        except (TypeError, ValueError, IndexError) as error:
            if isinstance(error, JaxftError):
                raise
            raise JaxftError(f"the augmentations '{self}' cannot work: {str(error).splitlines()[0]}") from error

    def image(self, key: jax.Array, image: jax.Array, size: int) -> jax.Array:
        """One example's picture.

        Args:
          key: see `example_keys`.
          image: uint8 [S + margin, S + margin, C].
          size: S.

        Returns:
          [S, S, C], values of 0 to 255: uint8 where pixels only change places, else f32.
        """
        places = [one for one in self.operations if one.name in MATRICES or one.name == "random_crop"]
        if all(one.name in _EXACT for one in places):
            for one in places:
                image = _moved(one, _key(key, one), image, size)
        else:
            matrix = jnp.eye(3)
            for one in places:
                matrix = matrix @ _matrix(one, _key(key, one), image.shape[:2], size)
            image = warp(image, matrix, size=(size, size), interpolation=self.interpolation, fill=self.fill)
        for one in self.operations:
            if (change := one.change) is not None:
                image = _same_shape(change(_key(key, one), image, **dict(one.options)), image, one)
        return image

    def images(self, batch: Batch, *, seed: int, size: int) -> jax.Array:
        """The pictures of a batch, each by itself: [B, S, S, C].

        Args:
          batch: `image` uint8 [B, S + margin, S + margin, C], `shown` and `index` int32 [B].
          seed: of the run.
          size: S.
        """
        keys = example_keys(seed, batch["shown"], batch["index"])
        return jax.vmap(lambda key, image: self.image(key, image, size))(keys, batch["image"])

    def batch(self, batch: Batch, *, seed: int, size: int, classes: int) -> Batch:
        """A batch as the network is to see it, to be traced into the training step.

        Args:
          batch: as `jaxft.data.train_batches` yields it: `image`, `label`, `shown`, `index`, ...
          seed: of the run.
          size: S.
          classes: K.

        Returns:
          The batch with another `image` and, where examples are mixed, `label` f32 [B, K] for classes [B].
        """
        if not self.operations:
            return batch
        image, label = self.images(batch, seed=seed, size=size), batch["label"]
        keys = example_keys(seed, batch["shown"], batch["index"])
        named = {one.name: one for one in self.operations}
        if flip := named.get("random_label_flip"):
            own = jax.vmap(lambda key: _key(key, flip))(keys)
            label = jax.vmap(lambda key, one: mix.random_label_flip(key, one, classes, **dict(flip.options)))(own, label)
        if mixing := [named[name] for name in _MIXING if name in named]:
            alphas = {f"{one.name}_alpha": one.option("alpha") for one in mixing}
            image, label = mix.mixed_batch(
                jax.vmap(lambda key: _key(key, mixing[0]))(keys), image, mix.soft_label(label, classes),
                p=mixing[0].option("p"), **alphas,
            )  # fmt: skip
        return {**batch, "image": image, "label": label}


def example_keys(seed: int, shown: jax.Array, index: jax.Array) -> jax.Array:
    """A key for each example [B], a function of (seed, shown, index).

    Args:
      seed: of the run.
      shown: how often the example was shown before, int32 [B]; where each is shown once an epoch, the epoch.
      index: its position in its source, int32 [B].
    """
    base = jax.random.fold_in(jax.random.key(seed), _USE)
    return jax.vmap(lambda shown, index: jax.random.fold_in(jax.random.fold_in(base, shown), index))(shown, index)


def _key(key: jax.Array, one: Operation) -> jax.Array:
    return jax.random.fold_in(key, one.place)


def _same_shape(changed: jax.Array, image: jax.Array, one: Operation) -> jax.Array:
    if jnp.shape(changed) != image.shape:
        was, found = list(image.shape), list(jnp.shape(changed))
        raise JaxftError(f"the augmentation '{one.name}' made {found} of an image {was}: the shape must stay")
    return changed


def _moved(one: Operation, key: jax.Array, image: jax.Array, size: int) -> jax.Array:
    if one.name == "random_flip":
        return geometry.random_flip(key, image, **dict(one.options))
    return geometry.random_crop(key, image, size, padding=one.option("padding"), fill=one.option("fill"))


def _matrix(one: Operation, key: jax.Array, canvas: tuple[int, ...], size: int) -> jax.Array:
    if one.name in MATRICES:
        return MATRICES[one.name](key, (size, size), **dict(one.options))  # a crop stands first: what follows sees its square
    y, x = geometry.crop_place(key, canvas, side=size, padding=one.option("padding"))
    shift = (canvas[0] - size) / 2 + one.option("padding")
    return jnp.eye(3).at[0, 2].set(x - shift).at[1, 2].set(y - shift)
