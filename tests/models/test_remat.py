"""With `remat` a network is the same function with the same names, and its training step needs less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import originals
import pytest
from compiled import USERS_GENERATOR

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.losses import softmax_cross_entropy
from jaxft.models import build
from jaxft.tasks import get_task
from jaxft.train import create_state, make_train_step, remat_options
from jaxft.tuning import FreezeSpec, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

#: Of tiny members: their options, and what is trained.
NETWORKS = {
    "vgg_bn": ({}, "from:stage5"),
    "resnet_basic": ({"drop_path": 0.5}, "from:stage4"),
    "efficientnet_timm": ({"drop_path": 0.5}, "from:stage3"),
    "vit_patch8": ({"drop_path": 0.5}, "from:stage3"),
}


def _gradients(model, on):
    def loss(trained, frozen, state, image):
        outputs, new = model.apply(tree.merge(trained, frozen), state, image, train=on, rng=jax.random.key(3))
        return (outputs["logits"] ** 2).mean(), (outputs, new)

    return jax.grad(loss, has_aux=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_gradients_and_statistics_are_the_same_also_where_a_part_is_frozen(name):
    options, part = NETWORKS[name]
    architecture = originals.cases()[name].architecture
    plain, remat = (build(architecture, 5, size=32, remat=remat, **options) for remat in ("", "all"))
    params, state = jax.jit(plain.init)(jax.random.key(0))
    same, _ = remat.shapes
    assert tree.paths(same) == tree.paths(params)
    mask = make_mask(FreezeSpec.parse(part), params, plain.stages)
    trained, frozen = tree.split(params, mask)
    image = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    expected = jax.jit(_gradients(plain, trains(mask)), compiler_options=USERS_GENERATOR)(trained, frozen, state, image)
    compiled = jax.jit(_gradients(remat, trains(mask)), compiler_options={**(remat_options() or {}), **USERS_GENERATOR})
    found = compiled(trained, frozen, state, image)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for value, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        # A bias whose sum the next BatchNorm takes off again has a gradient of zero but for rounding.
        np.testing.assert_allclose(other, value, rtol=1e-5, atol=max(1e-5 * np.abs(value).max(), 1e-8))


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "efficientnet_lite0", "vit_tiny_patch16_224"])
def test_every_kind_of_network_keeps_less_for_its_backward_pass(name):
    def kept(remat):
        """Bytes of what the backward pass is given, besides the parameters."""
        model = build(name, 5, size=64, remat=remat)
        params, state = model.shapes
        image = jax.ShapeDtypeStruct((16, 64, 64, 3), jnp.float32)

        def backward(params, state, image):
            _, back = jax.vjp(lambda p: model.apply(p, state, image, train=True, rng=jax.random.key(0))[0]["logits"], params)
            return dict(enumerate(jax.tree.leaves(back)))

        return tree.nbytes(jax.eval_shape(backward, params, state, image)) - tree.nbytes(params)

    everything, late, none = kept("all"), kept("stage[2-9]"), kept("")
    assert everything < 0.6 * none
    assert everything < late < none


@pytest.mark.parametrize(("remat", "said"), [("stage9", "stage9"), ("stage1,stem", "stem"), ("True", "True")])
def test_a_stage_that_has_no_blocks_to_compute_again_is_an_error(remat, said):
    with pytest.raises(JaxftError, match=f"remat: no stage is called '{said}'.*; give 'all', or of stage1, stage2"):
        build("resnet10t", 5, remat=remat)


def test_the_training_step_of_a_resnet_needs_less_memory():
    def temporary_bytes(remat):
        model = build("resnet10t", 5, size=64, remat=remat)
        params, model_state = model.shapes
        mask = jax.tree.map(lambda _: True, params)
        tx = optax.sgd(0.1)
        metrics = get_task("classify", 5).train_metrics
        step = make_train_step(model.apply, softmax_cross_entropy, tx, mask, metrics=metrics)
        state = jax.eval_shape(lambda p, s: create_state(p, s, tx, mask, rng=jax.random.key(0)), params, model_state)
        batch = {"image": jax.ShapeDtypeStruct((16, 64, 64, 3), jnp.float32), "label": jax.ShapeDtypeStruct((16,), jnp.int32)}
        jitted = jax.jit(step, donate_argnums=0, compiler_options=remat_options() if remat else None)
        return jitted.lower(state, batch).compile().memory_analysis().temp_size_in_bytes

    plain, remat = temporary_bytes(""), temporary_bytes("all")
    assert remat < 0.8 * plain, (plain, remat)
