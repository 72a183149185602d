"""A small network without any framework, for tests of the core: convolution, BatchNorm, dropout, dense head."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.typing import Trains

STAGES = {"stem": ("stem",), "stage1": ("block1",), "stage2": ("block2",), "head": ("head",)}
CLASSES = 4


def init(seed=0, channels=(3, 5, 6), size=8):
    """Parameters and statistics; the statistics are not the neutral ones, so that using them shows."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.4, jnp.float32)
    params, stats = {}, {}
    inner = 3
    for name, width in zip(("stem", "block1", "block2"), channels, strict=True):
        params[name] = {
            "conv": {"kernel": draw(3, 3, inner, width), "bias": draw(width)},
            "bn": {"scale": 1 + draw(width), "bias": draw(width)},
        }
        stats[name] = {"bn": {"mean": draw(width), "var": 1 + jnp.abs(draw(width))}}
        inner = width
    params["head"] = {"kernel": draw(inner, CLASSES), "bias": draw(CLASSES)}
    return params, {"batch_stats": stats}


def make_apply(dtype=jnp.float32, batch_norm=True, dropout=0.2):
    """An ApplyFn of that network."""

    def on(train, path):
        return train(path) if isinstance(train, Trains) else train

    def apply(params, model_state, image, *, train, rng):
        x = image.astype(dtype)
        stats = model_state["batch_stats"]
        new = {}
        for name in ("stem", "block1", "block2"):
            layer = params[name]
            x = jax.lax.conv_general_dilated(
                x, layer["conv"]["kernel"].astype(dtype), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + layer["conv"]["bias"].astype(dtype)
            old = stats[name]["bn"]
            wide = x.astype(jnp.float32)
            if batch_norm and on(train, f"{name}/bn"):
                mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
                keep = jax.lax.stop_gradient
                new[name] = {"bn": {"mean": 0.9 * old["mean"] + 0.1 * keep(mean), "var": 0.9 * old["var"] + 0.1 * keep(var)}}
            else:
                mean, var = old["mean"], old["var"]
                new[name] = {"bn": old}
            wide = (wide - mean) * jax.lax.rsqrt(var + 1e-5) * layer["bn"]["scale"] + layer["bn"]["bias"]
            x = jax.nn.relu(wide).astype(dtype)
        features = x.astype(jnp.float32).mean((1, 2))
        if dropout and on(train, "head"):
            keep = jax.random.bernoulli(rng, 1 - dropout, features.shape)
            features = jnp.where(keep, features / (1 - dropout), 0)
        logits = features @ params["head"]["kernel"] + params["head"]["bias"]
        return {"features": features, "logits": logits}, {"batch_stats": new}

    return apply


def make_batch(seed=0, size=8, side=8):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.normal(size=(size, side, side, 3)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, CLASSES, size), jnp.int32),
        "mask": jnp.ones(size, jnp.float32),
        "index": jnp.arange(size, dtype=jnp.int32),
    }


__all__ = ["CLASSES", "STAGES", "init", "make_apply", "make_batch"]
