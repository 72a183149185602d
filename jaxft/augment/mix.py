"""What changes labels, or mixes examples of a batch: functions of `(key, ...)` for each example."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxft.augment import color
from jaxft.augment.draws import beta
from jaxft.augment.geometry import chance
from jaxft.augment.pixels import in_window
from jaxft.errors import JaxftError


def random_label_flip(key: jax.Array, label: jax.Array, classes: int, p: float = 0.1) -> jax.Array:
    """Gives an example a wrong label with probability `p`.

    Args:
      key: a key.
      label: a class, int []: one of the others, each as likely; or labels [K] of 0 and 1: each is flipped by itself.
      classes: K.
      p: probability; of DisturbLabel (Xie et al., 2016) `p * classes / (classes - 1)` is the noise rate.

    Raises:
      JaxftError: a label of a regression.
    """
    used, drawn = jax.random.split(key)
    if jnp.issubdtype(label.dtype, jnp.integer):
        other = (label + jax.random.randint(drawn, (), 1, classes)) % classes
        return jnp.where(chance(used, p), other, label)
    if label.ndim != 1:
        raise JaxftError("random_label_flip flips classes: the value of a regression has no other")
    return jnp.where(jax.random.uniform(drawn, label.shape) < p, 1 - label, label)


def soft_label(label: jax.Array, classes: int) -> jax.Array:
    """Labels that can be mixed: classes [B] become [B, K] f32, others stay."""
    return jax.nn.one_hot(label, classes) if jnp.issubdtype(label.dtype, jnp.integer) else label.astype(jnp.float32)


def mixup(key: jax.Array, image: jax.Array, other: jax.Array, alpha: float = 0.2) -> tuple[jax.Array, jax.Array]:
    """mixup (Zhang et al., 2018): `share * image + (1 - share) * other`, the share from Beta(alpha, alpha).

    Returns:
      (f32 [H, W, C], share []).
    """
    return _blended(beta(key, alpha), image, other)


def _blended(share: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    return share * color.as_float(image) + (1 - share) * color.as_float(other), share


def cutmix(key: jax.Array, image: jax.Array, other: jax.Array, alpha: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """CutMix (Yun et al., 2019): a window of `other` lies on `image`; its area is what Beta(alpha, alpha) leaves, its middle
    anywhere, and what lies outside is cut off.

    Returns:
      (f32 [H, W, C], share [] of the image that is left).
    """
    drawn, place = jax.random.split(key)
    return _pasted(place, beta(drawn, alpha), image, other)


def _pasted(key: jax.Array, share: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    height, width = image.shape[:2]
    half = 0.5 * jnp.sqrt(1 - share)
    y, x = jnp.floor(jax.random.uniform(key, (2,)) * jnp.array([height, width]))
    left, right = jnp.clip(x - jnp.floor(half * width), 0, width), jnp.clip(x + jnp.floor(half * width), 0, width)
    top, low = jnp.clip(y - jnp.floor(half * height), 0, height), jnp.clip(y + jnp.floor(half * height), 0, height)
    inside = in_window((height, width), left, top, right - left, low - top)
    left_over = 1 - (right - left) * (low - top) / (height * width)
    return jnp.where(inside, color.as_float(other), color.as_float(image)), left_over


def mixed_batch(
    key: jax.Array,
    image: jax.Array,
    label: jax.Array,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    p: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Mixes each example of a batch with the one before it, the first with the last.

    Of the two shares the larger is the example's own: over pairs that are drawn at random all mixtures are as likely as without
    that, and no example is left out of a pass.

    Args:
      key: a key for each example [B].
      image: [B, H, W, C].
      label: f32 [B, K] or [B]; see `soft_label`.
      mixup_alpha, cutmix_alpha: of `mixup` and `cutmix`; 0 is neither. Where both are there, each is as likely.
      p: probability that an example is mixed.

    Returns:
      (f32 [B, H, W, C], f32 labels).
    """

    def one(key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        used, which, drawn, place = jax.random.split(key, 4)
        blends = chance(which, 0.5) if mixup_alpha and cutmix_alpha else jnp.bool(mixup_alpha > 0)
        shares = [beta(drawn, alpha) for alpha in (mixup_alpha, cutmix_alpha) if alpha]
        share = jnp.where(blends, shares[0], shares[-1])
        share = jnp.maximum(share, 1 - share)
        found, share = (
            jnp.where(blends, blended, pasted)
            for blended, pasted in zip(_blended(share, image, other), _pasted(place, share, image, other), strict=True)
        )
        mixes = chance(used, p)
        return jnp.where(mixes, found, color.as_float(image)), jnp.where(mixes, share, 1.0)

    found, share = jax.vmap(one)(key, image, jnp.roll(image, 1, axis=0))
    share = share.reshape(-1, *[1] * (label.ndim - 1))
    return found, share * label + (1 - share) * jnp.roll(label, 1, axis=0)
