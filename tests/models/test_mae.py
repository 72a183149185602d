"""Masked autoencoders against Hugging Face's ViTMAEForPreTraining (`scripts/make_ssl_fixtures.py`), and as stages of a ViT."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.export import export_network
from jaxft.finetuned import FineTuned
from jaxft.losses.self_supervised import masked_autoencoder
from jaxft.models import build, vit
from jaxft.preprocessing import Preprocessing
from jaxft.tuning import FreezeSpec, default_groups, make_mask
from jaxft.weights import load_model

pytestmark = pytest.mark.usefixtures("quick_compiles")

HEAD = "mae:1x32:0.6"
SMALL = vit.Config(16, 2, 2, patch=8, hidden=24)


def _built(head=HEAD, config=SMALL, size=32, **options):
    return build(vit.architecture(config, Preprocessing(size, size)), head=head, size=size, **options)


def _dense(found, name):
    return {"kernel": found[f"{name}.weight"].T, "bias": found[f"{name}.bias"]}


def _norm(found, name):
    return {"scale": found[f"{name}.weight"], "bias": found[f"{name}.bias"]}


def _block(found, name):
    packed = [_dense(found, f"{name}.attention.{part}_proj") for part in "qkv"]
    return {
        "attn": {
            "qkv": {key: np.concatenate([part[key] for part in packed], axis=-1) for key in ("kernel", "bias")},
            "proj": _dense(found, f"{name}.attention.o_proj"),
        },
        "norm1": _norm(found, f"{name}.layernorm_before"),
        "norm2": _norm(found, f"{name}.layernorm_after"),
        "mlp": {layer: _dense(found, f"{name}.mlp.{layer}") for layer in ("fc1", "fc2")},
    }


@pytest.fixture(scope="module")
def theirs():
    with np.load(Path(__file__).parent / "fixtures" / "mae.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def params(theirs):
    """Their weights under our names. Their decoder's positions are no weights of ours."""
    found = {key.removeprefix("weights/"): value for key, value in theirs.items() if key.startswith("weights/")}
    embeddings, projection = "vit.embeddings", "vit.embeddings.patch_embeddings.projection"
    return {
        "cls_token": found[f"{embeddings}.cls_token"],
        "pos_embed": found[f"{embeddings}.position_embeddings"],
        "patch_embed": {
            "proj": {"kernel": found[f"{projection}.weight"].transpose(2, 3, 1, 0), "bias": found[f"{projection}.bias"]}
        },
        "blocks": {str(number): _block(found, f"vit.layers.{number}") for number in range(2)},
        "norm": _norm(found, "vit.layernorm"),
        "head": {
            "embed": _dense(found, "decoder.decoder_embed"),
            "mask_token": found["decoder.mask_token"],
            "blocks": {"0": _block(found, "decoder.decoder_layers.0")},
            "norm": _norm(found, "decoder.decoder_norm"),
            "pred": _dense(found, "decoder.decoder_pred"),
        },
    }


def test_pixels_mask_loss_and_gradient_are_hugging_faces(theirs, params):
    model = _built()
    assert not tree.diff(model.shapes[0], params, dtypes=False)
    images = theirs["images"].transpose(0, 2, 3, 1)

    def loss(params):
        outputs = model.module.apply({"params": params}, images, False, noise=theirs["noise"])
        return masked_autoencoder(outputs, {}).mean(), outputs

    (value, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_array_equal(outputs["masked"], theirs["mask"])
    np.testing.assert_allclose(outputs["logits"].reshape(3, 16, 192), theirs["logits"], atol=2e-5)
    np.testing.assert_allclose(value, theirs["loss"], rtol=1e-5)
    np.testing.assert_allclose(gradient["head"]["embed"]["kernel"].T, theirs["gradient"], atol=1e-6)


def test_the_encoder_is_the_networks_own_and_the_decoder_its_head():
    masked, plain = _built(), _built("linear", num_classes=5)
    ours, theirs = tree.flatten(masked.shapes[0]), tree.flatten(plain.shapes[0])
    encoder = {path: leaf.shape for path, leaf in ours.items() if not path.startswith("head/")}
    assert encoder == {path: leaf.shape for path, leaf in theirs.items() if not path.startswith("head/")}
    assert masked.stages == plain.stages
    assert {masked.stage_of(path) for path in ours if path.startswith("head/")} == {"head"}
    trained = {path for path, trains in tree.flatten(make_mask(FreezeSpec.parse("head"), *_args(masked))).items() if trains}
    assert trained == {path for path in ours if path.startswith("head/")}
    assert masked.num_classes == 32 * 32 * 3


def _args(model):
    return model.shapes[0], model.stages


def test_what_was_hidden_changes_nothing_and_what_was_not_has_its_own_position(params):
    model, plain = _built(), _built("linear", num_classes=5)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    noise = jnp.tile(jnp.arange(16.0), (2, 1))  # the first six patches are kept
    say = jax.jit(lambda image: model.module.apply({"params": params}, image, False, noise=noise))
    found = say(image)
    seen = jax.jit(lambda image: plain.module.apply({"params": {**params, "head": _zeros(plain)}}, image, False))(image)
    np.testing.assert_allclose(found["stem"], seen["stem"][:, :7], atol=1e-6)
    other = image.at[:, 16:].set(7.0)  # patches that were hidden
    again = say(other)
    np.testing.assert_array_equal(again["logits"], found["logits"])
    np.testing.assert_array_equal(again["features"], found["features"])


def _zeros(model):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), model.shapes[0]["head"])


def test_a_step_hides_other_patches_of_each_image_and_an_evaluation_the_same(params):
    model = _built()
    image = jnp.ones((4, 32, 32, 3))

    @functools.partial(jax.jit, static_argnums=0)
    def say(train, key):
        return model.apply(params, {}, image, train=train, rng=key)[0]["masked"]

    def masked(train, key):
        return np.asarray(say(train, key))

    first, second = masked(True, jax.random.key(1)), masked(True, jax.random.key(2))
    assert (first.sum(1) == 10).all()
    assert len({tuple(row) for row in (*first, *second)}) == 8
    np.testing.assert_array_equal(masked(True, jax.random.key(1)), first)
    np.testing.assert_array_equal(masked(False, None), masked(False, jax.random.key(1)))
    with pytest.raises(JaxftError, match="apply needs rng="):
        masked(True, None)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (vit.Config(16, 1, 2, patch=8, class_token=False, placed=0, pool="avg"), 0),
        (vit.Config(16, 1, 2, patch=8, registers=2, pre_norm=True, layer_scale=0.1, pool="token+avg"), 3),
        (vit.Config(16, 1, 2, patch=8, dist_token=True, placed=2), 2),
    ],
    ids=["no class token", "registers", "distillation token"],
)
def test_any_tokens_before_the_patches_stay(config, tokens):
    model = _built(config=config)
    outputs = jax.eval_shape(lambda: model.apply(*model.init(jax.random.key(0)), jnp.ones((2, 32, 32, 3)))[0])
    assert outputs["neck"].shape == (2, tokens + 6, 16)
    assert outputs["target"].shape == (2, 16, 192)
    assert outputs["features"].shape == (2, 32 if config.pool == "token+avg" else 16)
    for path in tree.paths(model.shapes[0]):
        model.stage_of(path)


def test_positions_mask_token_and_their_like_do_not_decay():
    decays = {group.name: group for group in default_groups(_built().shapes[0])}
    flat = tree.paths(_built().shapes[0])
    undecayed = [p for p in flat if any(tree.matches(g, p) for group in decays.values() if not group.weight_decay
                                        for g in group.patterns)]  # fmt: skip
    assert {"pos_embed", "cls_token", "head/mask_token"} <= {*undecayed}
    assert "head/pred/kernel" not in undecayed


def test_pretrained_weights_of_the_network_fill_the_encoder(tmp_path):
    plain = build("tiny_nets:tiny_vit", 5, size=32)
    params, state = jax.jit(plain.init)(jax.random.key(3))
    tuned = FineTuned(plain, params, state, tuple("abcde"), "classify", 0, {"model": {"head": "linear"}})
    export_network(tuned, tmp_path / "w.safetensors", to="jaxft")
    loaded = load_model("tiny_nets:tiny_vit", None, str(tmp_path / "w.safetensors"), head="mae:1x32", size=32)
    ours, theirs = tree.flatten(loaded.params), tree.flatten(params)
    for path, leaf in ours.items():
        if not path.startswith("head/"):
            np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)
    assert {path.partition("/")[0] for path in loaded.report.new} == {"head"}


@pytest.mark.parametrize(
    ("head", "name", "said"),
    [
        ("mae", "resnet10t", "hides patches from a Vision Transformer.*which resnet is not"),
        ("mae", "deit_tiny_distilled_patch16_224", "which deit is not"),
        ("mae:4", "vit_tiny_patch16_224", "not 'mae', 'mae:BLOCKSxWIDTH'"),
        ("mae:0x32", "vit_tiny_patch16_224", "not 'mae', 'mae:BLOCKSxWIDTH'"),
        ("mae:1x32:1.5", "vit_tiny_patch16_224", "not 'mae', 'mae:BLOCKSxWIDTH'"),
        ("mae:4x100", "vit_tiny_patch16_224", "multiple of 32"),
    ],
)
def test_a_head_that_cannot_be_is_one_clear_error(head, name, said):
    with pytest.raises(JaxftError, match=said):
        build(name, head=head)


def test_what_it_cannot_do_is_one_clear_error(params):
    with pytest.raises(JaxftError, match="has no dropout"):
        _built(dropout=0.1)
    with pytest.raises(JaxftError, match="starts at the image"):
        _built().apply(params, {}, jnp.ones((1, 7, 16)), start="head")
    with pytest.raises(JaxftError, match="keeps 0 of 1 patches"):
        jax.eval_shape(_built(config=vit.Config(16, 1, 2, patch=32)).init, jax.random.key(0))


def test_the_decoder_of_the_name_alone_is_the_papers():
    params = build("vit_tiny_patch16_224", head="mae").shapes[0]
    assert len(params["head"]["blocks"]) == 8
    assert params["head"]["mask_token"].shape == (1, 1, 512)
