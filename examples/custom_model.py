"""A network of your own, a pure function without Flax, trained with our step: python examples/custom_model.py PHOTOS

First its head, then all of it. In `custom_architecture.py` is a network that the commands take by its name.
"""

import sys

import jax
import jax.numpy as jnp

import jaxft
from jaxft.losses import softmax_cross_entropy
from jaxft.metrics import classification_metrics, to_floats
from jaxft.preprocessing import Preprocessing
from jaxft.typing import ModelState, Outputs, Params, Trains

#: Which parameters belong to which stage: freezing is said in these names, or in globs over paths.
STAGES = {"stage1": ("conv1",), "stage2": ("conv2",), "head": ("head",)}
SEES = Preprocessing(size=32, resize=32)


def init(key: jax.Array, classes: int) -> Params:
    keys = jax.random.split(key, 3)
    conv = lambda key, inner, outer: {"kernel": jax.random.normal(key, (3, 3, inner, outer)) * (2 / (9 * inner)) ** 0.5}
    head = {"kernel": jax.random.normal(keys[2], (32, classes)) * 0.1, "bias": jnp.zeros(classes)}
    return {"conv1": conv(keys[0], 3, 16), "conv2": conv(keys[1], 16, 32), "head": head}


def apply(
    params: Params, model_state: ModelState, image: jax.Array, *, train: bool | Trains, rng: jax.Array | None
) -> tuple[Outputs, ModelState]:
    """All that jaxft asks of a network: `jaxft.typing.ApplyFn`."""
    x = image
    for name in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(x, params[name]["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x)
    features = x.mean((1, 2))
    return {"features": features, "logits": features @ params["head"]["kernel"] + params["head"]["bias"]}, model_state


data = jaxft.open_data(sys.argv[1])
params, network = init(jax.random.key(0), len(data.class_names)), jaxft.on_pixels(apply, SEES)
metrics = classification_metrics(len(data.class_names))
eval_step = jax.jit(jaxft.make_eval_step(network, softmax_cross_entropy, metrics=metrics))
for train in ("head", "full"):
    mask = jaxft.make_mask(jaxft.FreezeSpec.parse(train), params, STAGES)
    tx, _ = jaxft.make_optimizer(params, mask, name="adamw", lr=1e-2, total_steps=30)
    state = jaxft.create_state(params, {}, tx, mask, rng=jax.random.key(0))
    step = jax.jit(jaxft.make_train_step(network, softmax_cross_entropy, tx, mask, metrics=metrics))
    batches = jaxft.train_batches(data.train, SEES, batch_size=16, seed=0)
    for _step in range(30):
        state = step(state, next(batches))[0]
    batches.close()
    frozen = bool((state.params["conv1"]["kernel"] == params["conv1"]["kernel"]).all())
    params, total = state.params, metrics.empty()
    for batch in jaxft.eval_batches(data.val, SEES, batch_size=32):  # type: ignore[arg-type]
        total = total.merge(eval_step(params, state.model_state, batch)[0])
    print(f"{train}: the first kernel is {'as it was' if frozen else 'trained'}; validation", to_floats(total))
