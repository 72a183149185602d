"""The side of Keras 3 on the JAX backend. See `serve.py` for the protocol. Needs keras and jax, nothing of jaxft.

The step is Keras's own stateless training loop (keras.io, "Writing a training loop in JAX"), jitted as a whole with its state
donated: the fastest way Keras has, faster than `fit` or `train_on_batch`, which do work in Python for each batch.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
from jax_side import carrying, peak
from keras import layers
from serve import Missing, Prepared, serve, warmed

#: (blocks, kernel, stride, expansion, channels) of EfficientNet-Lite0's stages (Tan & Le, 2019).
LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(size: int, classes: int) -> keras.Model:
    """Keras has no Lite network of its own: this one is written with its layers."""

    def norm(x: Any, activation: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=1e-3, momentum=0.9)(x)
        return layers.ReLU(6.0)(x) if activation else x

    image = x = layers.Input((size, size, 3))
    x = norm(layers.Conv2D(32, 3, 2, padding="same", use_bias=False)(x))
    for count, kernel, first, expansion, channels in LITE0:
        for number in range(count):
            shortcut = x
            if expansion > 1:
                x = norm(layers.Conv2D(x.shape[-1] * expansion, 1, use_bias=False)(x))
            x = norm(layers.DepthwiseConv2D(kernel, 1 if number else first, padding="same", use_bias=False)(x))
            x = norm(layers.Conv2D(channels, 1, use_bias=False)(x), activation=False)
            if shortcut.shape == x.shape:
                x = layers.add([x, shortcut])
    x = layers.GlobalAveragePooling2D()(norm(layers.Conv2D(1280, 1, use_bias=False)(x)))
    return keras.Model(image, layers.Dense(classes)(layers.Dropout(0.2)(x)))


def build(name: str, size: int, classes: int) -> keras.Model:
    """The network of `keras.applications`, with logits, randomly initialised."""
    keras.utils.set_random_seed(0)
    plain = {"weights": None, "input_shape": (size, size, 3), "classes": classes, "classifier_activation": None}
    if name == "vgg16":
        return keras.applications.VGG16(**plain)
    if name == "resnet50":
        return keras.applications.ResNet50(**plain)
    if name == "efficientnet_lite0":
        return efficientnet_lite0(size, classes)
    raise Missing(f"keras_worker.py has no '{name}'")


def training(model: keras.Model, image: jax.Array, label: jax.Array) -> tuple[Any, Any]:
    """The step over what is trainable, SGD with momentum 0.9 on cross-entropy, and what is carried at its beginning."""
    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(trained: Any, rest: Any) -> Any:
        logits, rest = model.stateless_call(trained, rest, image, training=True)
        return cross_entropy(label, logits), rest

    def step(trained: Any, rest: Any, opt_state: Any) -> Any:
        (_, rest), grads = jax.value_and_grad(loss, has_aux=True)(trained, rest)
        trained, opt_state = optimizer.stateless_apply(opt_state, grads, trained)
        return trained, rest, opt_state

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    return lambda carried: (jitted(*carried), None), (*values(model), [variable.value for variable in optimizer.variables])


def values(model: keras.Model) -> tuple[list[jax.Array], list[jax.Array]]:
    """Copies: what is donated must not stay in the model."""
    both = model.trainable_variables, model.non_trainable_variables
    return tuple([jax.numpy.copy(variable.value) for variable in variables] for variables in both)  # type: ignore[return-value]


def prepare(work: dict[str, Any]) -> Prepared:
    model = build(work["model"], work["size"], work["classes"])
    shape = (work["batch"], work["size"], work["size"], 3)
    image = jax.random.normal(jax.random.key(0), shape)
    label = jax.random.randint(jax.random.key(1), shape[:1], 0, work["classes"])
    if work["part"] == "head":
        for layer in model.layers[:-1]:
            layer.trainable = False  # BatchNorm is then in inference mode
    if work["part"] == "eval":
        forward = jax.jit(lambda carried: model.stateless_call(*carried, image, training=False)[0])
        run = carrying(lambda carried: (carried, forward(carried)), values(model))
    elif work["part"] in ("train", "head"):
        run = carrying(*training(model, image, label))
    else:
        raise Missing(f"the Keras side has no part '{work['part']}'")
    return warmed(run, work["batch"], None, time.perf_counter())


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("keras", "jax")}


if __name__ == "__main__":
    serve(prepare, versions=versions, peak=peak)
