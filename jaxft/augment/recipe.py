"""A list of augmentations, as it stands in a config: "random_resized_crop(0.5), random_flip, random_rotation(10), mixup(0.2)".

Parsed once, checked, and split by where it runs. A crop that stands first is taken while a picture is read, out of its full
resolution; all else is one function of a batch, to be traced into the training step:

1. changes of place, composed into one matrix and one look into the picture (no look where flips and crops alone are asked for),
2. changes of pixels, in the order of the list,
3. labels, and mixing of examples.

An example's randomness depends on (seed, shown, index) and the place in the list; `shown` is how often it was shown before.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.augment import geometry, mix, pixels, policies
from jaxft.augment.warp import INTERPOLATIONS, warp
from jaxft.errors import JaxftError, near
from jaxft.typing import Batch

#: Lists by name. A name may stand in a list.
AUGMENTS = {
    "none": "",
    "crop_flip": "random_resized_crop, random_flip",
    "crop": "random_resized_crop",
    "mild_flip": "random_resized_crop(0.5), random_flip",
    "light": "random_resized_crop(0.7, ratio=(0.9, 1.1111111111111112))",
    "pad_flip": "random_crop(padding=4), random_flip",
}

# Apart from dropout and all else that a run draws.
_USE = 0x6A61


@dataclasses.dataclass(frozen=True)
class Window:
    """What is taken of a picture while it is read.

    Attributes:
      scale: share of the picture's area that a random window has, uniform in this range; None is no random window.
      ratio: width over height of the window, log-uniform in this range.
      margin: without a random window, pixels that the square in the middle of the picture is larger than the network's input,
        for a crop on the device: the short side is resized to that. None: what an evaluation shows.
    """

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    margin: int | None = None

    def side(self, size: int) -> int:
        """Of the square that is read for a network's input of `size`, in pixels."""
        return size + (self.margin or 0)


def _resized_crop(scale: Any = (0.08, 1.0), ratio: Any = (3 / 4, 4 / 3)) -> Window:
    """`scale` may be its lower end alone."""
    low, high = scale if isinstance(scale, tuple) else (scale, 1.0)
    if not 0 < low <= high <= 1:
        raise JaxftError(f"scale is {scale}: shares of the picture's area between 0 and 1, the smaller first")
    if not 0 < ratio[0] <= ratio[1]:
        raise JaxftError(f"ratio is {ratio}: width over height, the smaller first")
    return Window((float(low), float(high)), (float(ratio[0]), float(ratio[1])))


def _crop(margin: int = 0, padding: int = 0, fill: float = 0.0) -> Window:
    if margin < 0 or padding < 0 or not margin + padding:
        raise JaxftError(f"random_crop(margin={margin}, padding={padding}): pixels to crop from, of at least one of them")
    return Window(margin=margin)


def _matrix_options(function: Callable[..., Any]) -> Callable[..., None]:
    """What a geometric operation takes in a list: the options of its matrix."""
    taken = [one for one in inspect.signature(function).parameters.values() if one.name not in ("key", "size")]
    return _accepting([one.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in taken])


def _image_options(function: Callable[..., Any]) -> Callable[..., None]:
    return _accepting([one for one in inspect.signature(function).parameters.values() if one.name not in ("key", "image")])


def _accepting(parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    def accept(**options: Any) -> None:
        return None

    accept.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return accept


def _label_flip(p: float = 0.1) -> None:
    return None


def _mixup(alpha: float = 0.2, p: float = 1.0) -> None:
    return None


def _cutmix(alpha: float = 1.0, p: float = 1.0) -> None:
    return None


_MATRICES: dict[str, Callable[..., jax.Array]] = {
    "random_flip": geometry.flip_matrix,
    "random_rotation": geometry.rotation_matrix,
    "random_scale": geometry.scale_matrix,
    "random_affine": geometry.affine_matrix,
    "random_perspective": geometry.perspective_matrix,
}
_PIXELS: dict[str, Callable[..., jax.Array]] = {
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
#: name -> what checks its options.
_ACCEPTS: dict[str, Callable[..., Any]] = {
    "random_resized_crop": _resized_crop,
    "random_crop": _crop,
    **{name: _matrix_options(function) for name, function in _MATRICES.items()},
    **{name: _image_options(function) for name, function in _PIXELS.items()},
    "random_label_flip": _label_flip,
    "mixup": _mixup,
    "cutmix": _cutmix,
}
_MIXING = ("mixup", "cutmix")
#: What moves pixels without looking between them.
_EXACT = ("random_flip", "random_crop")
OPERATIONS = tuple(_ACCEPTS)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One entry of a list: its name, its options, and its place in the list."""

    name: str
    options: tuple[tuple[str, Any], ...]
    place: int

    def option(self, name: str) -> Any:
        return dict(self.options)[name]

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

    window: Window = Window()
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

    def image(self, key: jax.Array, image: jax.Array, size: int) -> jax.Array:
        """One example's picture.

        Args:
          key: see `example_keys`.
          image: uint8 [S + margin, S + margin, C].
          size: S.

        Returns:
          [S, S, C], values of 0 to 255: uint8 where pixels only change places, else f32.
        """
        places = [one for one in self.operations if one.name in _MATRICES or one.name == "random_crop"]
        if all(one.name in _EXACT for one in places):
            for one in places:
                image = _moved(one, _key(key, one), image, size)
        else:
            matrix = jnp.eye(3)
            for one in places:
                matrix = matrix @ _matrix(one, _key(key, one), image.shape[:2], size)
            image = warp(image, matrix, size=(size, size), interpolation=self.interpolation, fill=self.fill)
        for one in self.operations:
            if one.name in _PIXELS:
                image = _PIXELS[one.name](_key(key, one), image, **dict(one.options))
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


def _moved(one: Operation, key: jax.Array, image: jax.Array, size: int) -> jax.Array:
    if one.name == "random_flip":
        return geometry.random_flip(key, image, **dict(one.options))
    return geometry.random_crop(key, image, size, padding=one.option("padding"), fill=one.option("fill"))


def _matrix(one: Operation, key: jax.Array, canvas: tuple[int, ...], size: int) -> jax.Array:
    if one.name in _MATRICES:
        return _MATRICES[one.name](key, canvas, **dict(one.options))
    y, x = geometry.crop_place(key, canvas, side=size, padding=one.option("padding"))
    shift = (canvas[0] - size) / 2 + one.option("padding")
    return jnp.eye(3).at[0, 2].set(x - shift).at[1, 2].set(y - shift)


def parse(text: str | Augment, *, interpolation: str = "bilinear", fill: float = 0.0) -> Augment:
    """Reads a list of augmentations.

    Args:
      text: names of `OPERATIONS` with options, as Python writes calls, or of `AUGMENTS`, with commas between; "" is none.
      interpolation: "bilinear" or "nearest".
      fill: what lies outside the picture, 0 to 255.

    Raises:
      JaxftError: no such name or option, one twice, a crop that does not stand first.
    """
    if isinstance(text, Augment):
        return text
    if interpolation not in INTERPOLATIONS:
        raise JaxftError(f"no interpolation is called '{interpolation}'; there are {', '.join(INTERPOLATIONS)}")
    window = Window()
    operations: list[Operation] = []
    for place, (name, given) in enumerate(_calls(text)):
        if name not in _ACCEPTS:
            raise JaxftError(
                f"no augmentation is called '{name}'{near(name, (*AUGMENTS, *OPERATIONS))}; there are "
                f"{', '.join((*AUGMENTS, *OPERATIONS))}"
            )
        options = _options(name, given)
        if any(one.name == name for one in operations) or (name == "random_resized_crop" and place):
            raise JaxftError(f"the augmentation '{name}' stands in the list twice, or is a crop that does not stand first")
        if name in ("random_resized_crop", "random_crop"):
            if place:
                raise JaxftError(f"'{name}' is taken while a picture is read: it must stand first, and alone of its kind")
            window = _ACCEPTS[name](**options)
        if name != "random_resized_crop":
            operations.append(Operation(name, tuple(options.items()), place))
    return Augment(window, tuple(operations), interpolation, fill)


def _calls(text: str) -> list[tuple[str, tuple[list[Any], dict[str, Any]]]]:
    """(name, (positional, named options)) of each entry, names of `AUGMENTS` replaced by what they stand for."""
    try:
        entries = ast.parse(f"[{text}]", mode="eval").body.elts  # type: ignore[attr-defined]
    except (SyntaxError, ValueError) as error:
        raise JaxftError(
            f"the augmentations '{text}' cannot be read: names with commas between, e.g. 'random_flip, random_rotation(10)'"
        ) from error
    found: list[tuple[str, tuple[list[Any], dict[str, Any]]]] = []
    for entry in entries:
        call = entry if isinstance(entry, ast.Call) else None
        name = call.func if call is not None else entry
        if not isinstance(name, ast.Name):
            raise JaxftError(f"'{ast.unparse(entry)}' in '{text}' is no augmentation: name, or name(option, option=value)")
        if call is None and name.id in AUGMENTS:
            found += _calls(AUGMENTS[name.id])
            continue
        try:
            positional = [ast.literal_eval(one) for one in call.args] if call else []
            named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords} if call else {}
        except ValueError as error:
            said = f"the options of '{ast.unparse(entry)}' must be numbers, words in quotes or pairs of them"
            raise JaxftError(said) from error
        found.append((name.id, (positional, named)))
    return found


def _options(name: str, given: tuple[list[Any], dict[str, Any]]) -> Mapping[str, Any]:
    """All options of an operation, those not given with their defaults."""
    signature = inspect.signature(_ACCEPTS[name])
    positional, named = given
    for key in named:
        if key not in signature.parameters:
            raise JaxftError(f"'{name}' takes no option '{key}'{near(key, signature.parameters)}; it takes {signature}")
    try:
        bound = signature.bind(*positional, **named)
    except TypeError as error:
        raise JaxftError(f"'{name}': {error}; it takes {signature}") from error
    bound.apply_defaults()
    p = bound.arguments.get("p", 0.5)
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise JaxftError(f"'{name}': p is {p!r}: a probability lies between 0 and 1")
    return bound.arguments
