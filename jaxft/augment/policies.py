"""RandAugment, TrivialAugment and AugMix: operations drawn from one table, as torchvision's versions draw them.

Operations are told apart by data, not by code, so that a batch is one program: all of them are a matrix, a blend with another
image, or one of four formulas. What several geometric operations of a chain do becomes one
warp, before its changes of colour; a chain of one operation is exactly torchvision's.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxft.augment import color
from jaxft.augment import warp as at
from jaxft.augment.draws import beta, dirichlet
from jaxft.errors import JaxftError

IDENTITY = "identity"
GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS = ("brightness", "saturation", "contrast", "sharpness")
OTHERS = ("posterize", "solarize", "autocontrast", "equalize")
#: In torchvision's order.
OPERATIONS = (IDENTITY, *GEOMETRY, *BLENDS, *OTHERS)
NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
_SIGNED = (*GEOMETRY, *BLENDS)


@dataclasses.dataclass(frozen=True)
class Space:
    """How strong each operation is at its strongest.

    Attributes:
      shear: pixels a pixel.
      translate: share of the side; of `pixels` it is a number of them.
      pixels: whether `translate` is in pixels.
      rotate: degrees.
      blend: a factor of 1 plus or minus this.
      bits, lost_bits: how many `posterize` keeps at its weakest, and how many fewer at its strongest.
      operations: those that are drawn from.
    """

    shear: float = 0.3
    translate: float = 150.0 / 331.0
    pixels: bool = False
    rotate: float = 30.0
    blend: float = 0.9
    bits: float = 8.0
    lost_bits: float = 4.0
    operations: tuple[str, ...] = OPERATIONS


#: Cubuk et al. (2019), Muller & Hutter (2021), Hendrycks et al. (2019), each with torchvision's numbers.
RAND_AUGMENT = Space()
TRIVIAL_AUGMENT = Space(shear=0.99, translate=32.0, pixels=True, rotate=135.0, blend=0.99, lost_bits=6.0)
AUG_MIX = Space(translate=1 / 3, bits=4.0, operations=tuple(name for name in OPERATIONS if name != IDENTITY))


def matrix_of(number: jax.Array, level: jax.Array, size: tuple[int, ...], space: Space) -> jax.Array:
    """What an operation does to places; the identity, where it does not.

    Args:
      number: of `OPERATIONS`.
      level: -1 to 1.
      size: height and width.
    """
    slant = space.shear * level
    x, y = (jnp.where(number == NUMBER[f"shear_{axis}"], slant, 0.0) for axis in "xy")
    sides = (1, 1) if space.pixels else (size[1], size[0])
    # Whole pixels, cut off towards zero, as in torchvision.
    dx, dy = (
        jnp.where(number == NUMBER[f"translate_{axis}"], jnp.trunc(space.translate * side * level), 0.0)
        for axis, side in zip("xy", sides, strict=True)
    )
    angle = jnp.where(number == NUMBER["rotate"], space.rotate * level, 0.0)
    return at.sheared(x, y, corner=size) @ at.moved(dx, dy) @ at.rotated(angle)


def recolored(image: jax.Array, number: jax.Array, level: jax.Array, space: Space) -> jax.Array:
    """What an operation does to colours: f32 [H, W, C], values of 0 to 255.

    Args:
      image: [H, W, C].
      number: of `OPERATIONS`.
      level: -1 to 1; of operations without a sign its size counts.
    """
    image = color.as_float(image)
    grey = color.luminance(image)
    other = jnp.where(number == NUMBER["saturation"], grey, 0.0)
    other = jnp.where(number == NUMBER["contrast"], grey.mean(), other)
    other = jnp.where(number == NUMBER["sharpness"], color.smooth(image), other)
    blends = jnp.isin(number, jnp.array([NUMBER[name] for name in BLENDS]))
    found = color.blend(image, other, jnp.where(blends, 1 + space.blend * level, 1.0))
    size = jnp.abs(level)
    others = {
        "posterize": color.posterize(image, space.bits - jnp.round(space.lost_bits * size)),
        "solarize": color.solarize(image, 255.0 * (1 - size)),
        "autocontrast": color.autocontrast(image),
        "equalize": color.equalize(image),
    }
    for name, changed in others.items():
        found = jnp.where(number == NUMBER[name], changed, found)
    return found


def chain(
    image: jax.Array,
    numbers: jax.Array,
    levels: jax.Array,
    space: Space,
    *,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """Does several operations: all of their geometry in one warp, then their changes of colour in turn.

    Args:
      image: [H, W, C].
      numbers: of `OPERATIONS`: int [n].
      levels: [n], -1 to 1.
    """
    size = image.shape[:2]
    matrix = jnp.eye(3)
    for number, level in zip(numbers, levels, strict=True):
        matrix = matrix @ matrix_of(number, level, size, space)
    found = at.warp(image, matrix, interpolation=interpolation, fill=fill)
    for number, level in zip(numbers, levels, strict=True):
        found = recolored(found, number, level, space)
    return found


def draw(key: jax.Array, count: int, space: Space, level: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Operations and signs: int [count] and levels [count]."""
    which, sign = jax.random.split(key)
    drawn = jax.random.randint(which, (count,), 0, len(space.operations))
    numbers = jnp.array([NUMBER[name] for name in space.operations])[drawn]
    signed = jnp.array([name in _SIGNED for name in OPERATIONS])[numbers]
    signs = jnp.where(jax.random.bernoulli(sign, shape=(count,)), -1.0, 1.0)
    return numbers, jnp.where(signed, signs, 1.0) * level


def rand_augment(
    key: jax.Array,
    image: jax.Array,
    num_ops: int = 2,
    magnitude: float = 9.0,
    *,
    bins: int = 31,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """RandAugment (Cubuk et al., 2019): `num_ops` operations of 14, each as strong as `magnitude` of `bins - 1`."""
    if not 0 <= magnitude <= bins - 1:
        raise JaxftError(f"magnitude is {magnitude}: it must lie in 0 to {bins - 1}, one less than bins")
    numbers, levels = draw(key, num_ops, RAND_AUGMENT, jnp.float32(magnitude / (bins - 1)))
    return chain(image, numbers, levels, RAND_AUGMENT, interpolation=interpolation, fill=fill)


def trivial_augment(
    key: jax.Array, image: jax.Array, *, bins: int = 31, interpolation: str = "bilinear", fill: float = 0.0
) -> jax.Array:
    """TrivialAugment, wide (Muller & Hutter, 2021): one operation of 14, its strength one of `bins`, uniformly."""
    drawn, strength = jax.random.split(key)
    level = jax.random.randint(strength, (), 0, bins) / (bins - 1)
    numbers, levels = draw(drawn, 1, TRIVIAL_AUGMENT, level)
    return chain(image, numbers, levels, TRIVIAL_AUGMENT, interpolation=interpolation, fill=fill)


def aug_mix(
    key: jax.Array,
    image: jax.Array,
    severity: float = 3.0,
    width: int = 3,
    depth: int = -1,
    *,
    alpha: float = 1.0,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> jax.Array:
    """AugMix (Hendrycks et al., 2019): `width` chains of operations, weighed by a Dirichlet distribution, and the image itself.

    A chain has `depth` operations, or one to three (-1); each is as strong as a number uniform in 0.1 to `severity`, of 10.
    `alpha` is of the Dirichlet distribution and of the Beta distribution of the image's share.
    """
    depths, strengths, drawn, weights, share = jax.random.split(key, 5)
    longest = 3 if depth < 0 else depth
    lengths = jax.random.randint(depths, (width,), 1, 4) if depth < 0 else jnp.full(width, depth)
    level = jax.random.uniform(strengths, (width, longest), minval=0.1, maxval=severity) / 10
    mixing = dirichlet(weights, alpha, width)
    mixed = jnp.zeros(image.shape, jnp.float32)
    for number in range(width):
        numbers, levels = draw(jax.random.fold_in(drawn, number), longest, AUG_MIX, level[number])
        numbers = jnp.where(jnp.arange(longest) < lengths[number], numbers, NUMBER[IDENTITY])
        mixed += mixing[number] * chain(image, numbers, levels, AUG_MIX, interpolation=interpolation, fill=fill)
    kept = beta(share, alpha)
    return kept * color.as_float(image) + (1 - kept) * mixed
