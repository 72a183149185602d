"""LoRA and DoRA of PEFT, whose files, logits, gradients and merged weights scripts/make_peft_fixtures.py keeps."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft import tree
from jaxft.adapters import adapted, merge_adapter
from jaxft.errors import JaxftError
from jaxft.models import build, convnext, vit
from jaxft.tuning import ADAPTERS
from jaxft.weights import names, save_safetensors
from jaxft.weights.peft import CONFIG, WEIGHTS, from_peft, peft_files, read_peft, to_peft
from jaxft.weights.readers import read
from jaxft.weights.rules import convert, export, places, sources_of

pytestmark = pytest.mark.usefixtures("quick_compiles")

FIXTURE = Path(__file__).parent / "fixtures" / "peft.npz"
PRE = vit.ARCHITECTURES["vit_tiny_patch16_224"].preprocessing
NETWORKS = {
    "vit": (vit.architecture(vit.Config(16, 2, 2, 8, hidden=24, epsilon=1e-12), PRE), "transformers"),
    "convnext": (convnext.architecture(convnext.Config((1, 1, 1, 1), (4, 8, 8, 16))), "timm"),
}
CASES = {"lora": "vit", "dora": "vit", "rslora": "vit", "conv": "convnext", "conv_dora": "convnext"}


def _under(found, prefix):
    return {key.removeprefix(f"{prefix}/"): found[key] for key in found if key.startswith(f"{prefix}/")}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """What PEFT wrote and computed, and our network with that adapter."""
    stored = dict(np.load(FIXTURE))
    made, network = _under(stored, request.param), CASES[request.param]
    architecture, convention = NETWORKS[network]
    model = build(architecture, 5, size=32)
    table = names.rules(model, convention)
    params, _ = model.shapes
    own = convert(_under(stored, network), table, {"params": params}).tree["params"]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / WEIGHTS).write_bytes(made["file"].tobytes())
    config = json.loads(made["config"].tobytes())
    (folder / CONFIG).write_text(json.dumps(config))
    found = read_peft(folder)
    head = {
        place.path.removeprefix("params/"): place.rule.op.forward(found.others[name])
        for name, place in places(found.others, table).items()
    }
    assert len(head) == 2
    own = tree.unflatten({**tree.flatten(own), **head})
    adapter, adapters = from_peft(found, table, own)
    return model, table, own, adapter, adapters, found, made, convention


def _logits(model, params, image):
    return jax.jit(lambda params: model.apply(params, {}, image)[0]["logits"])(params)


def test_the_logits_and_every_gradient_are_those_of_peft(case):
    model, table, own, adapter, adapters, _, made, _ = case
    model = adapted(model, adapter)
    params = {**own, ADAPTERS: jax.tree.map(jnp.asarray, adapters)}
    image = jnp.asarray(made["image"])

    def loss(trained):
        logits = model.apply({**params, **trained}, {}, image)[0]["logits"]
        return (logits * jnp.arange(5.0)).sum(), logits

    trained = {key: params[key] for key in (ADAPTERS, "head")}
    grads, logits = jax.jit(jax.grad(loss, has_aux=True))(trained)
    np.testing.assert_allclose(logits, made["logits"], rtol=1e-4, atol=1e-4 * np.abs(made["logits"]).max())
    # Their gradients, laid out as ours: in the place of each matrix its gradient.
    theirs = {key.removeprefix("base_model.model."): value for key, value in _under(made, "grad").items()}
    flat = tree.flatten(grads[ADAPTERS])
    compared = 0
    for module in adapter.ranks:
        rule, sources = sources_of(f"params/{module}/kernel", table)
        op, row = rule.op.of_each or rule.op, 0
        a, b, width = flat[f"{module}/lora_a"], flat[f"{module}/lora_b"], flat[f"{module}/lora_b"].shape[-1] // len(sources)
        for part, source in enumerate(sources):
            layer = source.removesuffix(".weight")
            if f"{layer}.lora_A.weight" not in theirs:
                continue
            columns = slice(part * width, (part + 1) * width)
            their_a = op.forward(theirs[f"{layer}.lora_A.weight"])
            rank = their_a.shape[-1]
            scale = _scale_of(made, layer, rank)
            _close(a[..., row : row + rank], their_a)
            _close(b[row : row + rank, columns] * scale, theirs[f"{layer}.lora_B.weight"].reshape(width, rank).T)
            if adapter.decomposed:
                _close(flat[f"{module}/magnitude"][columns], theirs[f"{layer}.lora_magnitude_vector.weight"].ravel())
            row, compared = row + rank, compared + 1
    assert compared == len({key for key in theirs if key.endswith("lora_A.weight")})
    (kernel,) = (value for key, value in theirs.items() if key in ("classifier.weight", "head.fc.weight"))
    _close(next(leaf for path, leaf in tree.flatten(grads["head"]).items() if path.endswith("kernel")), kernel.T)


def _scale_of(made, layer, rank):
    config = json.loads(made["config"].tobytes())
    return config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)


def _close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4 * np.abs(theirs).max())


def test_merged_kernels_are_those_that_peft_merges_within_a_millionth(case):
    model, table, own, adapter, adapters, _, made, _ = case
    plain, merged = merge_adapter(adapted(model, adapter), {**own, ADAPTERS: adapters})
    assert plain.adapter is None
    found = export({"params": jax.tree.map(np.asarray, merged)}, table)
    theirs = _under(made, "merged")
    kernels = {key: value for key, value in theirs.items() if key in found}
    assert len(kernels) >= len(adapter.ranks)
    for key, value in kernels.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-6 * max(1, np.abs(value).max()))


def test_merged_and_unmerged_give_the_same(case):
    model, _, own, adapter, adapters, _, made, _ = case
    with_it = adapted(model, adapter)
    params = {**own, ADAPTERS: jax.tree.map(jnp.asarray, adapters)}
    plain, merged = merge_adapter(with_it, params)
    image = jnp.asarray(made["image"])
    np.testing.assert_allclose(_logits(with_it, params, image), _logits(plain, merged, image), rtol=1e-6, atol=1e-6)


def test_what_is_written_for_peft_is_read_as_the_same_network(case, tmp_path):
    model, table, own, adapter, adapters, found, made, _ = case
    config, tensors = peft_files(to_peft(adapter, adapters, table, found.base))
    save_safetensors(tmp_path / WEIGHTS, tensors, {"format": "pt"})
    (tmp_path / CONFIG).write_text(json.dumps(config))
    again, leaves = from_peft(read_peft(tmp_path), table, own)
    image = jnp.asarray(made["image"])
    before = _logits(adapted(model, adapter), {**own, ADAPTERS: jax.tree.map(jnp.asarray, adapters)}, image)
    after = _logits(adapted(model, again), {**own, ADAPTERS: jax.tree.map(jnp.asarray, leaves)}, image)
    np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda config, tensors: config.update(peft_type="IA3"), "of the kind IA3: of PEFT's, LoRA and DoRA are read"),
        (lambda config, tensors: config.pop("peft_type"), "adapter_config.json cannot be read"),
        (lambda config, tensors: tensors.pop(_first(tensors, "lora_B")), "one of lora_A and lora_B is missing"),
        (lambda config, tensors: [tensors.pop(key) for key in list(tensors) if "lora" in key], "holds no matrices of LoRA"),
        (lambda config, tensors: tensors.update({"base_model.model.other.lora_C.weight": np.ones(1)}), "is no matrix of LoRA"),
    ],
)
def test_another_adapter_or_a_damaged_one_is_an_error(spoil, message, tmp_path):
    stored = _under(dict(np.load(FIXTURE)), "lora")
    (tmp_path / WEIGHTS).write_bytes(stored["file"].tobytes())
    config = json.loads(stored["config"].tobytes())
    tensors = {key: np.array(value) for key, value in read(tmp_path / WEIGHTS).items()}
    spoil(config, tensors)
    save_safetensors(tmp_path / WEIGHTS, tensors)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(JaxftError, match=message):
        read_peft(tmp_path)


def _first(tensors, part):
    return next(key for key in tensors if part in key)


def test_layers_or_shapes_of_another_network_are_an_error(tmp_path):
    stored = dict(np.load(FIXTURE))
    made = _under(stored, "lora")
    (tmp_path / WEIGHTS).write_bytes(made["file"].tobytes())
    (tmp_path / CONFIG).write_bytes(made["config"].tobytes())
    found = read_peft(tmp_path)
    wider = build(vit.architecture(vit.Config(24, 2, 2, 8, hidden=24), PRE), 5, size=32)
    with pytest.raises(JaxftError, match="do not fit its layer"):
        from_peft(found, names.rules(wider, "transformers"), wider.shapes[0])
    other = build(NETWORKS["convnext"][0], 5, size=32)
    with pytest.raises(JaxftError, match="4 layers of the adapter are not of this network"):
        from_peft(found, names.rules(other, "timm"), other.shapes[0])
