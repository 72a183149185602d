"""Test-time augmentation: a network's answer to a picture is the mean of its answers to several views of it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxft.augment.warp import cropped, warp
from jaxft.errors import JaxftError, near
from jaxft.typing import ApplyFn, ModelState, Outputs, Params, Trains

View = Callable[[jax.Array], jax.Array]

#: Side of a crop, as a share of the picture's: the 224 of 256 pixels of Krizhevsky et al. (2012).
CROP = 7 / 8


def _mirrored(image: jax.Array) -> jax.Array:
    return image[:, :, ::-1]


def _crop(across: float, down: float) -> View:
    """A square of `CROP` of the picture, shown at the picture's size; `across` and `down` are 0 (left, top) to 1."""

    def view(image: jax.Array) -> jax.Array:
        size = (int(image.shape[1]), int(image.shape[2]))
        height, width = CROP * size[0], CROP * size[1]
        place = (across * (size[1] - width), down * (size[0] - height), width, height)
        matrix = cropped(*(jnp.float32(one) for one in place), source=size, size=size)
        edge = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        return jax.vmap(lambda one: warp(one, matrix, size=size))(edge)

    return view


_FLIPS: tuple[View, ...] = (lambda image: image, _mirrored)
_CROPS = tuple(_crop(across, down) for across, down in ((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5)))
VIEWS: dict[str, tuple[View, ...]] = {"flip": _FLIPS, "crops": _CROPS}


def parse_views(text: str) -> tuple[View, ...]:
    """The views of a list: "" is the picture alone, "flip" it and its mirror image, "crops" its corners and middle (7/8 of the
    side, enlarged), "flip,crops" both: ten views.

    Raises:
      JaxftError: another name.
    """
    views: tuple[View, ...] = (lambda image: image,)
    for name in dict.fromkeys(part.strip() for part in text.split(",") if part.strip()):
        if name not in VIEWS:
            raise JaxftError(f"no views are called '{name}'{near(name, VIEWS)}; there are {', '.join(VIEWS)}")
        views = tuple(_after(first, then) for first in views for then in VIEWS[name])
    return views


def _after(first: View, then: View) -> View:
    return lambda image: then(first(image))


def averaged(apply: ApplyFn, views: tuple[View, ...], *, probabilities: bool) -> ApplyFn:
    """A network that answers with the mean over views.

    Args:
      apply: the network on pixels; see `jaxft.preprocessing.on_pixels`.
      views: of `parse_views`.
      probabilities: `logits` are the logarithm of the mean of the softmax; else the mean of the logits.

    Returns:
      An `ApplyFn` for inference; its outputs have `logits` alone.
    """
    if len(views) == 1:
        return apply

    def apply_to_views(
        params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None
    ) -> tuple[Outputs, ModelState]:
        found = [apply(params, model_state, view(image), train=train, rng=rng)[0]["logits"] for view in views]
        logits = jnp.stack(found)
        if probabilities:
            mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(len(views))
        else:
            mean = logits.mean(0)
        return {"logits": mean}, model_state

    return apply_to_views
