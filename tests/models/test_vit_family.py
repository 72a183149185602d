"""The Vision Transformer's descendants, tiny: every kind of tokens, pooling and head; starts at stages; kinds of files."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded

from jaxft import tree
from jaxft.errors import JaxftError
from jaxft.models import Positions, build, clip, deit, dinov2, dinov3, siglip, vit
from jaxft.preprocessing import Preprocessing
from jaxft.weights import convert, export
from jaxft.weights.names import conventions, rules
from jaxft.weights.rules import destinations

KEY = jax.random.key(0)


def _like(entry):
    """A tiny network of a member's kind."""
    config = dataclasses.replace(entry.config, width=32, depth=2, heads=2, hidden=64, patch=8)
    return vit.architecture(config, Preprocessing(32, 32), entry.family)


NETWORKS = {
    "deit_distilled": _like(deit.ARCHITECTURES["deit_tiny_distilled_patch16_224"]),
    "deit3": _like(deit.ARCHITECTURES["deit3_small_patch16_224"]),
    "dinov2": _like(dinov2.ARCHITECTURES["vit_giant_patch14_reg4_dinov2_lc"]),
    "clip": _like(clip.ARCHITECTURES["vit_base_patch16_clip_quickgelu_224"]),
    "siglip": _like(siglip.ARCHITECTURES["vit_base_patch32_siglip_256"]),
    "dinov3": dinov3.architecture(dinov3.Config(32, 2, 2, gated=True, bias=True, patch=8)),
}
TOKENS = {"deit_distilled": 2, "deit3": 1, "dinov2": 5, "clip": 1, "siglip": 0, "dinov3": 5}
FEATURES = {"deit_distilled": 64, "dinov2": 64}


pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.mark.parametrize(("head", "channels", "size"), [("linear", 3, 32), ("mlp", 1, 40)])
def test_maps_are_bfloat16_tokens_and_logits_float32_for_any_head_channels_and_size(name, head, channels, size):
    model = build(NETWORKS[name], 7, head=head, in_channels=channels, size=size, dtype="bfloat16")
    params, state = jax.eval_shape(lambda rng: model.init(rng, size), KEY)
    image = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    outputs, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x), params, state, image)
    tokens = TOKENS[name] + (size // 8) ** 2
    for stage in list(model.stages)[:-1]:
        assert (outputs[stage].shape, outputs[stage].dtype) == ((2, tokens, 32), jnp.bfloat16), stage
    features, logits = outputs["features"], outputs["logits"]
    assert (features.shape, features.dtype) == ((2, FEATURES.get(name, 32)), jnp.bfloat16)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    for path in tree.paths(params):
        assert sum(any(tree.matches(glob, path) for glob in globs) for globs in model.stages.values()) == 1, path


def test_started_at_a_stage_or_recomputed_it_is_the_same_network(name):
    model, again = (build(NETWORKS[name], 5, size=32, remat=remat, drop_path=0.5, dropout=0.2) for remat in ("", "all"))
    params, state = jax.jit(lambda rng: model.init(rng, 32))(KEY)
    image = jax.random.normal(KEY, (2, 32, 32, 3))

    def run(model, start, image):
        return model.apply(params, state, image, train=True, rng=KEY, start=start)[0]

    whole = jax.jit(functools.partial(run, model, ""))(image)

    @jax.jit
    def others(image, maps):
        started = [run(model, start, maps[model.input_of(start)]) for start in ("stage3", "neck", "head")]
        return [*started, run(again, "", image)]

    for outputs in others(image, whole):
        for key, value in outputs.items():
            np.testing.assert_allclose(value, whole[key], rtol=1e-5, atol=1e-5 * np.abs(whole[key]).max(), err_msg=key)


def test_positions_without_a_prefix_or_a_first_axis_are_resized_alike():
    given = seeded.tensor(1, "positions", (1, 2 + 14 * 14, 4))
    expected = Positions("pos_embed", 14, prefix=2).resized(given, 518)
    assert expected.shape == (1, 2 + 37 * 37, 4)
    np.testing.assert_array_equal(expected[:, :2], given[:, :2])
    none = Positions("pos_embed", 14, prefix=0)
    assert none.size_of(given[0, 2:]) == 196
    np.testing.assert_array_equal(none.resized(given[:, 2:], 518), expected[:, 2:])
    np.testing.assert_array_equal(none.resized(given[0, 2:], 518), expected[0, 2:])


def _renamed(name, convention, rename):
    """Whether a file of a tiny network, its tensors renamed, is read to the same leaves."""
    model = build(NETWORKS[name], 5, size=32)
    table = rules(model, convention)
    shapes = tree.map_with_path(lambda path, leaf: seeded.tensor(1, path, leaf.shape), model.variables)
    tensors = rename(export(shapes, table))
    found = convert(tensors, table, model.variables).tree
    for path, leaf in tree.flatten(shapes).items():
        np.testing.assert_array_equal(tree.flatten(found)[path], leaf, err_msg=path)


OLDER = {
    ".q_proj": ".attention.query",
    ".k_proj": ".attention.key",
    ".v_proj": ".attention.value",
    ".o_proj": ".output.dense",
}


def _older(name):
    for new, old in OLDER.items():
        name = name.replace(new, old)
    return name


def test_files_from_before_transformers_5_and_of_the_backbone_alone_are_read():
    def deit_before(tensors):
        def older(name):
            old = _older(name.replace("deit.layers.", "deit.encoder.layer.")).replace(".mlp.fc1", ".intermediate.dense")
            return old.replace(".mlp.fc2", ".output.dense")

        return {older(name): value for name, value in tensors.items()}

    def dinov2_before(tensors):
        found = {}
        for name, value in tensors.items():
            old = _older(name.removeprefix("dinov2_with_registers.")).replace("mlp.down_proj", "mlp.weights_out")
            if "gate_proj" in old:
                up = tensors[name.replace("gate_proj", "up_proj")]
                found[old.replace("gate_proj", "weights_in")] = np.concatenate([value, up])
            elif "up_proj" not in old:
                found[old] = value
        return {**found, "embeddings.mask_token": np.zeros((1, 32), np.float32)}

    _renamed("deit_distilled", "transformers", deit_before)
    _renamed("dinov2", "transformers", dinov2_before)
    _renamed("dinov3", "transformers", lambda given: {name.removeprefix("model."): value for name, value in given.items()})


def test_the_authors_files_of_dinov2_with_registers_are_read():
    model = build(NETWORKS["dinov2"], 5, size=32)
    authors = {
        "register_tokens": "reg_token",
        "pos_embed": "pos_embed",
        "patch_embed.proj.weight": "patch_embed/proj/kernel",
        "blocks.0.norm1.weight": "blocks/0/norm1/scale",
        "blocks.1.attn.qkv.bias": "blocks/1/attn/qkv/bias",
        "blocks.1.ls2.gamma": "blocks/1/ls2/gamma",
        "blocks.1.mlp.w12.weight": "blocks/1/mlp/fc1/kernel",
        "blocks.1.mlp.w3.bias": "blocks/1/mlp/fc2/bias",
        "norm.bias": "norm/bias",
    }
    found = destinations(authors, rules(model, "transformers"))
    assert found == {name: f"params/{path}" for name, path in authors.items()}


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_file_of_the_network_for_images_and_texts_is_read(name):
    texts = (
        "logit_scale", "text_model.embeddings.token_embedding.weight", "text_model.final_layer_norm.bias",
        "text_model.encoder.layers.0.self_attn.k_proj.weight", "text_model.encoder.layers.0.layer_norm1.weight",
    )  # fmt: skip
    own = {"clip": ("visual_projection.weight", "text_projection.weight"), "siglip": ("logit_bias", "text_model.head.weight")}
    other = {key: np.zeros(1, np.float32) for key in (*texts, *own[name])}
    _renamed(name, "transformers", lambda tensors: tensors | other)
    _renamed(name, "transformers", lambda tensors: {key.removeprefix("vision_model."): tensors[key] for key in tensors})


def test_a_library_without_such_a_member_has_no_names_for_it():
    assert conventions(build(NETWORKS["deit3"])) == ("timm",)
    assert conventions(build(NETWORKS["dinov2"])) == ("transformers",)
    assert conventions(build("vit_small_patch16_dinov3")) == ("timm",)
    with pytest.raises(JaxftError, match="no names of 'transformers'.*; it has timm"):
        rules(build("vit_small_patch16_dinov3"), "transformers")


def test_images_that_dinov3_cannot_place_are_clear_errors():
    model = build(NETWORKS["dinov3"], 5)
    for shape, message in (((1, 16, 64, 3), "square images, these have 16x64"), ((1, 36, 36, 3), "size is 36, not a multiple")):
        with pytest.raises(JaxftError, match=message):
            jax.eval_shape(lambda rng, shape=shape: model.module.init(rng, jnp.zeros(shape), False), KEY)
