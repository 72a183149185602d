import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest

from jaxft import models, tree
from jaxft.errors import JaxftError
from jaxft.tuning import FreezeSpec, make_mask, trains

pytestmark = pytest.mark.usefixtures("quick_compiles")

#: The smallest of each family; all others are slow.
EVERY = [pytest.param(name, marks=[] if name in originals.smallest() else pytest.mark.slow) for name in models.list_models()]


@pytest.mark.parametrize("name", EVERY)
def test_parameter_counts_are_the_published_ones_and_every_parameter_has_one_stage(name):
    model = models.build(name)
    params, state = model.shapes
    assert {tree.count(params)} >= {entry["parameters"] for entry in originals.full()[name].values()}
    assert tree.count(params) == models.size_of(name).parameters
    paths = tree.paths(params)
    for path in paths:
        named = [stage for stage, globs in model.stages.items() if any(tree.matches(glob, path) for glob in globs)]
        assert len(named) == 1, path
    assert list(model.stages)[-1] == "head"
    assert model.architecture.first_conv in paths
    assert {path.rsplit("/", 1)[0] for path in tree.paths(state.get("batch_stats", {}))} <= {
        path.rsplit("/", 1)[0] for path in paths
    }


def test_vgg16_with_ten_classes_has_134301514_parameters_and_only_classifier_6_is_its_head():
    model = models.build("vgg16", 10)
    params, _ = model.shapes
    assert tree.count(params) == 134_301_514
    mask = make_mask(FreezeSpec.parse("head"), params, model.stages)
    trained, _ = tree.split(params, mask)
    assert tree.paths(trained) == ["classifier/6/bias", "classifier/6/kernel"]


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize(("head", "channels", "size"), [("linear", 3, 64), ("mlp", 1, 33), ("linear", 5, 32)])
def test_outputs_have_logits_features_and_a_map_a_stage(name, head, channels, size):
    model = models.build(name, 7, head=head, in_channels=channels, size=size)
    params, state = model.shapes
    image = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    outputs, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x), params, state, image)
    assert outputs["logits"].shape == (2, 7)
    assert outputs["features"].ndim == 2
    assert set(model.stages) - {"head"} <= outputs.keys()
    assert len(model.preprocessing.mean) == channels


@pytest.mark.parametrize("name", ["resnet10t", "deit_tiny_distilled_patch16_224"])
def test_mixed_heads_give_the_mean_of_their_logits_and_all_belong_to_the_head(name):
    """Each part computes what it would as the only head."""
    model = models.build(name, 5, head="linear+mlp+cosine:6", size=32, dropout=0.0)
    params, state = jax.jit(model.init)(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (3, 32, 32, 3))
    apply = lambda model, params: jax.jit(lambda p: model.apply(p, state, image)[0]["logits"])(params)
    found, alone = apply(model, params), []
    flat = tree.flatten(params)
    for number, kind in enumerate(("linear", "mlp", "cosine:6")):
        one = models.build(name, 5, head=kind, size=32, dropout=0.0)
        own = {path: flat[path] for path in tree.paths(one.shapes[0]) if path in flat}
        for path in tree.paths(one.shapes[0]):
            if path not in flat:  # head/kernel is head/0/kernel here, head/hidden/bias head/1/hidden/bias
                assert one.stage_of(path) == "head"
                (place,) = (mixed for mixed in flat if mixed.replace(f"/{number}/", "/", 1) == path)
                own[path] = flat[place]
        alone.append(apply(one, tree.unflatten(own)))
    np.testing.assert_allclose(found, sum(alone) / 3, rtol=1e-5, atol=1e-6)
    _, frozen = tree.split(params, make_mask(FreezeSpec.parse("head"), params, model.stages))
    assert {*tree.paths(frozen)} < {*tree.paths(models.build(name).shapes[0])}


@pytest.fixture(scope="module")
def lite():
    model = models.build(originals.cases()["efficientnet_timm"].architecture, 5, size=32, dropout=0.2, drop_path=0.2)
    params, state = jax.jit(model.init)(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    return model, params, state, image


def test_with_a_frozen_backbone_statistics_stay_and_features_are_those_of_inference(lite):
    model, params, state, image = lite
    on = trains(make_mask(FreezeSpec.parse("head"), params, model.stages))
    outputs, new = jax.jit(lambda p, s, x: model.apply(p, s, x, train=on, rng=jax.random.key(2)))(params, state, image)
    expected, _ = jax.jit(lambda p, s, x: model.apply(p, s, x))(params, state, image)
    np.testing.assert_array_equal(outputs["features"], expected["features"])
    for path, leaf in tree.flatten(new).items():
        np.testing.assert_array_equal(leaf, tree.flatten(state)[path], err_msg=path)
    assert not np.array_equal(outputs["logits"], expected["logits"])  # the head's own dropout is on


def test_a_partly_trained_network_updates_only_the_statistics_of_trained_modules(lite):
    model, params, state, image = lite
    on = trains(make_mask(FreezeSpec.parse("from:stage2"), params, model.stages))
    _, new = jax.jit(lambda p, s, x: model.apply(p, s, x, train=on, rng=jax.random.key(2)))(params, state, image)
    for path, leaf in tree.flatten(new["batch_stats"]).items():
        moved = not np.array_equal(leaf, tree.flatten(state["batch_stats"])[path])
        assert moved is (model.stage_of(path) in ("stage2", "stage3", "neck")), path


def test_bfloat16_computes_in_bfloat16_and_gives_float32_logits_and_statistics():
    model = models.build("resnet10t", 5, size=32, dtype="bfloat16")
    params, state = jax.jit(model.init)(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {jnp.dtype("float32")}
    image = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    apply = jax.jit(lambda p, s, x: model.apply(p, s, x, train=True))
    outputs, new = apply(params, state, image)
    assert outputs["stage4"].dtype == jnp.bfloat16
    assert outputs["logits"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype("float32")}


def test_random_layers_without_a_key_are_a_clear_error(lite):
    model, params, state, image = lite
    with pytest.raises(JaxftError, match="apply needs rng="):
        model.apply(params, state, image, train=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.build("vgg61"), r"no network is called 'vgg61' .did you mean .*'vgg16'"),
        (lambda: models.build("vgg16", drop_path=0.1), "vgg16 has no drop_path"),
        (lambda: models.build("vgg16", dropout=1.5), r"dropout is 1.5: it must lie in \[0, 1\)"),
        (lambda: models.build("vgg16", head="conv"), "not 'linear' or 'mlp'"),
        (lambda: models.build("vgg16", dtype="float16"), "not 'float32', 'bfloat16' or 'float64'"),
        (lambda: models.build("vgg16", dtype="float64"), "set JAX_ENABLE_X64=1"),
        (lambda: models.build("vgg16", size=16), "needs at least 32 pixels"),
        (lambda: models.pretrained("resnet50", "imagnet"), "has no weights 'imagnet' .did you mean 'imagenet'"),
    ],
)
def test_what_does_not_exist_is_a_clear_error(call, message):
    with pytest.raises(JaxftError, match=message):
        call()


def test_every_record_of_pretrained_weights_is_whole():
    for name in models.list_models():
        records = models.pretrained_records(name)
        assert len({record.tag for record in records}) == len(records)
        for record in records:
            assert record.source.startswith(("https://", "package:", "hf:"))
            # Neither timm nor, of most, Keras says it: the first download is kept to.
            assert len(record.sha256) >= 8 or record.convention in ("timm", "keras")
            assert models.is_tag(record.tag)
            assert len(record.preprocessing.mean) == 3
            assert (record.accuracy is None) is (record.accuracy_source == "")


def test_a_networks_default_weights_are_its_best_that_anyone_may_use():
    assert models.pretrained("resnet50").tag == models.pretrained("resnet50", "imagenet").tag == "imagenet_v2"
    licences = [record.licence for record in models.pretrained_records("resnext101_32x4d")]
    assert licences == ["apache-2.0", "cc-by-nc-4.0", "cc-by-nc-4.0"]


def test_imagenet_is_the_first_record_with_imagenets_classes():
    records = models.pretrained_records("vit_base_patch16_224")
    assert models.pretrained("vit_base_patch16_224", "imagenet") == next(r for r in records if r.num_classes == 1000)
    assert models.pretrained("efficientnet_lite0", "imagenet").tag == "imagenet"


def test_the_readme_counts_networks_and_weights_right():
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text()
    names = models.list_models()
    weights = sum(len(models.pretrained_records(name)) for name in names)
    assert f"{len(names)} networks, {weights} pretrained weights" in readme


def test_a_tag_stands_after_a_dot():
    assert models.split_tag("resnet50.a1_in1k") == ("resnet50", "a1_in1k")
    assert models.split_tag("resnet50") == ("resnet50", "")
    assert [models.is_tag(given) for given in ("a1_in1k", "net.pth", "hf:a/b/c", "folder/net")] == [True, False, False, False]


def test_the_sizes_kept_are_those_of_the_networks():
    for name in models.list_models():
        assert models.size_of(name).size == models.build(name).preprocessing.size
    # torchvision publishes 4.089 G multiply-adds, those with padding zeros among them.
    assert 0.95 * 2 * 4.089e9 < models.size_of("resnet50").flops < 2 * 4.089e9
    assert models.list_models() == list(json.loads((Path(models.__file__).parent / "figures.json").read_text()))
