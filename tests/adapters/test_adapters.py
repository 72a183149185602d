import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import tree
from jaxft.adapters import NAMES, merge, merge_adapter, unmerge, with_adapter
from jaxft.errors import JaxftError
from jaxft.models import build, vit
from jaxft.models.around import calls_around
from jaxft.tuning import ADAPTER_TERMS, ADAPTERS, FreezeSpec, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

PRE = vit.ARCHITECTURES["vit_tiny_patch16_224"].preprocessing
CONFIG = vit.Config(16, 4, 2, patch=8, hidden=24)
KEY = jax.random.key(3)
IMAGE = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))


def _vit(**changes):
    return build(vit.architecture(CONFIG, PRE), 5, size=32, **changes)


def _drawn(params, seed=0, deviation=0.3):
    """Another number for every leaf, the neutral ones too."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        treedef, [leaf + deviation * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def networks():
    """A ViT and a ResNet with BatchNorm: (model, params, statistics, logits)."""
    found = {}
    for name, model in {"vit": _vit(), "resnet": build("resnet10t", 5, size=32)}.items():
        params, state = jax.jit(model.init)(KEY)
        params = _drawn(params, deviation=0.02)
        found[name] = model, params, state, _apply(model, params, state)["logits"]
    return found


def _apply(model, params, state=None, image=IMAGE):
    state = {} if state is None else state
    return jax.jit(lambda params: model.apply(params, state, image)[0])(params)


CASES = [(network, name) for network in ("vit", "resnet") for name in NAMES if (network, name) != ("resnet", "prompt")]


@pytest.mark.parametrize(("network", "name"), CASES)
def test_before_the_first_step_the_network_is_what_it_was(networks, network, name):
    model, params, state, logits = networks[network]
    adapted = with_adapter(model, name)
    full = adapted.add_adapters(params, KEY)
    assert tree.diff(adapted.shapes[0], full, dtypes=True) == tree.Diff()
    found = _apply(adapted, full, state)["logits"]
    if name == "prompt":
        assert np.abs(found - logits).max() > 1e-3  # tokens that were not there
    elif name == "dora":  # divides by norms and multiplies with them
        np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, logits)


def test_a_network_that_is_drawn_has_the_adapters_it_would_be_given():
    model = with_adapter(_vit(), "lora", rank=2)
    params, _ = jax.jit(model.init)(KEY)
    own = {key: value for key, value in params.items() if key != ADAPTERS}
    again = jax.jit(model.add_adapters)(own, KEY)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_lora_is_the_product_of_two_matrices_at_every_kernel_but_the_head(networks):
    model, params, _, _ = networks["resnet"]
    adapted = with_adapter(model, "lora", rank={"layer1": 3, "layer*/*/conv2": 0, "**": 2}, alpha={"layer1": 6.0, "**": 1.0})
    full = adapted.add_adapters(params, KEY)
    full = {**full, ADAPTERS: _drawn(full[ADAPTERS])}
    _, merged = merge_adapter(adapted, full)
    flat, added, own = tree.flatten(merged), tree.flatten(full[ADAPTERS]), tree.flatten(params)
    changed = {path for path in own if not np.array_equal(flat[path], own[path])}
    kernels = {path for path in own if path.endswith("/kernel") and not path.startswith("fc")}
    without = {path for path in kernels if path.startswith(("layer2", "layer3", "layer4")) and path.endswith("conv2/kernel")}
    assert without
    assert changed == kernels - without
    for path in changed:
        module = path.removesuffix("/kernel")
        rank, alpha = (3, 6.0) if path.startswith("layer1") else (2, 1.0)
        a, b = np.float64(added[f"{module}/lora_a"]), np.float64(added[f"{module}/lora_b"])
        assert a.shape[-1] == rank
        expected = np.float64(own[path]) + alpha / rank * np.einsum("...r,ro->...o", a, b)
        np.testing.assert_allclose(flat[path], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    back = tree.flatten(unmerge(adapted.adapter, merged, full[ADAPTERS]))
    for path in own:  # to one rounding of the merged kernel
        np.testing.assert_allclose(back[path], own[path], rtol=0, atol=2e-7 * np.abs(flat[path]).max())
    pure = tree.flatten(merge(adapted.adapter, params, full[ADAPTERS]))
    assert all(np.array_equal(pure[path], flat[path]) for path in flat)


@pytest.mark.parametrize("network", ["vit", "resnet"])
def test_ssf_scales_and_shifts_what_every_module_with_a_bias_gives(networks, network):
    model, params, state, _ = networks[network]
    adapted = with_adapter(model, "ssf")
    full = adapted.add_adapters(params, KEY)
    full = {**full, ADAPTERS: _drawn(full[ADAPTERS], deviation=0.1)}
    added = tree.flatten(full[ADAPTERS])

    def after(module):
        scale, shift = added[f"{module}/ssf_scale"], added[f"{module}/ssf_shift"]
        return lambda call, x: call(x) * scale + shift

    with calls_around({module: after(module) for module in adapted.adapter.modules}):
        expected = _apply(model, params, state)["logits"]
    np.testing.assert_allclose(_apply(adapted, full, state)["logits"], expected, rtol=1e-4, atol=1e-5)
    plain, merged = merge_adapter(adapted, full)
    np.testing.assert_allclose(_apply(plain, merged, state)["logits"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "modules", "expected"),
    [
        ("vit", "", [f"blocks/{block}/{part}" for block in range(4) for part in ("attn", "mlp")]),
        ("resnet", "", [f"layer{stage}/0" for stage in (1, 2, 3, 4)]),
        ("vit", "blocks/1", ["blocks/1"]),
    ],
)
def test_bottleneck_adapters_add_two_small_layers_after_a_module(networks, network, modules, expected):
    model, params, state, _ = networks[network]
    adapted = with_adapter(model, "bottleneck", width=3, modules=modules)
    assert list(adapted.adapter.widths) == expected
    full = adapted.add_adapters(params, KEY)
    full = {**full, ADAPTERS: _drawn(full[ADAPTERS], deviation=0.1)}
    added = tree.flatten(full[ADAPTERS])

    def after(module):
        down, down_bias, up, up_bias = (added[f"{module}/{name}"] for name in ("down", "down_bias", "up", "up_bias"))

        def around(call, x):
            y = call(x)
            inner = y @ down + down_bias
            return y + (inner * 0.5 * (1 + jax.lax.erf(inner / np.sqrt(2)))) @ up + up_bias

        return around

    with calls_around({module: after(module) for module in expected}):
        written_out = _apply(model, params, state)["logits"]
    np.testing.assert_allclose(_apply(adapted, full, state)["logits"], written_out, rtol=1e-4, atol=1e-5)
    with pytest.raises(JaxftError, match="'bottleneck' cannot be merged"):
        merge_adapter(adapted, full)


def test_shallow_prompts_are_registers_without_a_position(networks):
    model, params, _, _ = networks["vit"]
    adapted = with_adapter(model, "prompt", length=3, deep=False)
    full = adapted.add_adapters(params, KEY)
    tokens = full[ADAPTERS]["blocks"]["0"]["prompt"]
    registers = build(vit.architecture(dataclasses.replace(CONFIG, registers=3), PRE), 5, size=32)
    expected = _apply(registers, {**params, "reg_token": tokens[None]})["logits"]
    np.testing.assert_allclose(_apply(adapted, full)["logits"], expected, rtol=1e-5, atol=1e-6)


def test_deep_prompts_stand_before_every_block_and_are_taken_out_after_it(networks):
    model, params, _, _ = networks["vit"]
    adapted = with_adapter(model, "prompt", length=2)
    full = adapted.add_adapters(params, KEY)
    x = _apply(model, params)["stem"]
    for block in range(4):
        tokens = jnp.broadcast_to(full[ADAPTERS]["blocks"][str(block)]["prompt"], (2, 2, 16))
        x = jnp.concatenate([x[:, :1], tokens, x[:, 1:]], axis=1)
        x = model.apply(params, {}, x, start=f"stage{block + 1}")[0][f"stage{block + 1}"]
        x = jnp.concatenate([x[:, :1], x[:, 3:]], axis=1)
    found = _apply(adapted, full)
    np.testing.assert_allclose(found["stage4"], x, rtol=1e-4, atol=1e-5)
    expected = model.apply(params, {}, x, start="neck")[0]["logits"]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)


MASKED = [*((network, name) for network, name in CASES if network == "vit"), ("resnet", "lora")]


@pytest.mark.parametrize(("network", "name"), MASKED)
def test_the_mask_of_its_name_trains_the_adapter_and_the_head_alone(networks, network, name):
    model, params, state, _ = networks[network]
    adapted = with_adapter(model, name)
    full = adapted.add_adapters(params, KEY)
    full = {**full, ADAPTERS: _drawn(full[ADAPTERS], deviation=0.1)}
    mask = make_mask(FreezeSpec.parse(f"{name}+head"), full, adapted.stages)
    trained = {path for path, on in tree.flatten(mask).items() if on}
    assert {path.split("/")[0] for path in trained} == {ADAPTERS, next(iter(model.stages["head"]))}
    for term in ("full", "from:stage2", "norms", "stage3"):
        others = make_mask(FreezeSpec.parse(term), full, adapted.stages)
        assert not any(on for path, on in tree.flatten(others).items() if path.startswith(ADAPTERS))
    parts, frozen = tree.split(full, mask)

    def loss(parts):
        outputs, new = adapted.apply(tree.merge(parts, frozen), state, IMAGE, train=trains(mask), rng=KEY)
        return (outputs["logits"] ** 2).sum(), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(parts)
    without = [path for path, grad in tree.flatten(grads).items() if not np.abs(grad).max() > 0]
    assert not without
    jax.tree.map(np.testing.assert_array_equal, new, state)  # frozen BatchNorms keep their statistics


def test_adapters_work_where_blocks_are_computed_again():
    found = []
    for remat in ("", "all"):
        model = with_adapter(_vit(remat=remat), "bottleneck", width=2)
        params, _ = jax.jit(model.init)(KEY)
        params = {**params, ADAPTERS: _drawn(params[ADAPTERS])}
        loss = lambda params, model=model: (model.apply(params, {}, IMAGE)[0]["logits"] ** 2).sum()
        found.append(jax.jit(jax.grad(loss))(params))
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5), *found)


def test_a_network_from_a_stage_on_takes_the_adapters_of_that_stage(networks):
    model, params, state, _ = networks["resnet"]
    adapted = with_adapter(model, "lora", rank=2)
    full = adapted.add_adapters(params, KEY)
    full = {**full, ADAPTERS: _drawn(full[ADAPTERS], deviation=0.05)}
    assert adapted.stage_of(f"{ADAPTERS}/layer3/0/conv1/lora_a") == model.stage_of("layer3/0/conv1/kernel")
    whole = _apply(adapted, full, state)
    later = {path: leaf for path, leaf in tree.flatten(full).items() if adapted.stage_of(path) in ("stage4", "head")}
    rest = adapted.apply(tree.unflatten(later), state, whole["stage3"], start="stage4")[0]
    np.testing.assert_allclose(rest["logits"], whole["logits"], rtol=1e-5, atol=1e-6 * np.abs(whole["logits"]).max())


def test_grouped_convolutions_are_left_alone_unless_they_are_named():
    model = build("mobilenetv2_050", 5, size=32)
    usual, named = with_adapter(model, "lora").adapter.ranks, with_adapter(model, "lora", modules="**").adapter.ranks
    assert {module.rpartition("/")[2] for module in named.keys() - usual.keys()} == {"conv_dw"}
    assert usual.keys() < named.keys()


def test_terms_and_kinds_are_the_same():
    assert set(NAMES) == set(ADAPTER_TERMS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lorra", {}, "no adapter is called 'lorra' .did you mean 'lora'"),
        ("lora", {"ranks": 4}, "has no option 'ranks' .did you mean 'rank'"),
        ("lora", {"rank": {"blocks/9": 4}}, "rank: pattern 'blocks/9' matches no parameter"),
        ("lora", {"rank": 0}, "leaves no kernel to adapt"),
        ("lora", {"rank": 1.5}, "must be a whole number"),
        ("lora", {"rank": 2, "alpha": {"blocks": 1.0}}, "alpha has no glob that matches 'patch_embed/proj'"),
        ("lora", {"modules": "head"}, "'head' matches no parameter"),
        ("ssf", {"modules": "blocks/*/attm"}, "matches no parameter .did you mean"),
        ("bottleneck", {"width": 0}, "width is 0: it must be at least 1"),
        ("bottleneck", {"modules": "blocks"}, "none of these itself"),
        ("prompt", {"length": 0}, "length is 0"),
    ],
)
def test_what_does_not_fit_is_an_error(name, options, message):
    with pytest.raises(JaxftError, match=message):
        with_adapter(_vit(), name, **options)


def test_prompts_are_for_vision_transformers_and_one_adapter_is_enough():
    with pytest.raises(JaxftError, match="resnet10t takes no prompts: vit, deit"):
        with_adapter(build("resnet10t", 5, size=32), "prompt")
    with pytest.raises(JaxftError, match="has an adapter already, 'lora'"):
        with_adapter(with_adapter(_vit(), "lora"), "ssf")
    with pytest.raises(JaxftError, match="this network has no adapters"):
        make_mask(FreezeSpec.parse("lora+head"), _vit().shapes[0], _vit().stages)
    model = with_adapter(_vit(), "dora", rank=1)
    with pytest.raises(JaxftError, match="cannot be taken apart"):
        unmerge(model.adapter, {}, {})
