"""Losses against a teacher, compared with torch's (scripts/make_distillation_fixtures.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.losses import distillation, feature_distillation, resolve, softmax_cross_entropy

FOUND = dict(np.load(Path(__file__).parent / "fixtures" / "distillation.npz"))
OUTPUTS = {name: jnp.asarray(FOUND[name], jnp.float32) for name in ("logits", "stage1", "stage2")}
BATCH = {"image": jnp.zeros((6, 4, 4, 3)), "label": jnp.asarray(FOUND["label"], jnp.int32), "mask": jnp.ones(6)}


def teacher(image):
    assert image.shape == (6, 4, 4, 3)
    return {name: jnp.asarray(FOUND[f"teacher_{name}"], jnp.float32) for name in OUTPUTS}


def _compare(loss, name, wanted, mean=False):
    def of(parts):
        return loss({**OUTPUTS, **parts}, BATCH)

    value = of({})
    np.testing.assert_allclose(value.mean() if mean else value, FOUND[name], rtol=1e-5)
    grads = jax.grad(lambda parts: of(parts).mean())({one: OUTPUTS[one] for one in wanted})
    for one in wanted:
        scale = np.abs(FOUND[f"{name}_of_{one}"]).max()
        np.testing.assert_allclose(grads[one], FOUND[f"{name}_of_{one}"], atol=1e-5 * scale, err_msg=one)


def test_softened_answers_are_compared_as_torchs_kl_div_does():
    _compare(lambda *given: distillation(*given, teacher=teacher, temperature=3.0, weight=0.7), "hinton", ["logits"])


def test_attention_maps_are_compared_by_the_papers_formula():
    _compare(lambda *given: feature_distillation(*given, teacher=teacher), "attention", ["stage1", "stage2"])


def test_similarities_within_the_batch_are_compared_by_the_papers_formula():
    loss = resolve("feature_distillation", None, kind="similarity", weight=3000.0)
    _compare(lambda *given: loss(*given, teacher=teacher), "similarity", ["stage2"], mean=True)


def test_without_a_teacher_it_is_the_cross_entropy():
    plain = softmax_cross_entropy(OUTPUTS, BATCH)
    np.testing.assert_array_equal(distillation(OUTPUTS, BATCH, teacher=None), plain)
    np.testing.assert_array_equal(feature_distillation(OUTPUTS, BATCH, teacher=None), plain)


def test_a_teacher_with_the_networks_own_answers_and_no_labels_gives_zero():
    np.testing.assert_allclose(distillation(OUTPUTS, BATCH, teacher=lambda _: OUTPUTS, weight=1.0), 0, atol=1e-6)
    for kind in ("attention", "similarity"):
        found = feature_distillation(OUTPUTS, BATCH, teacher=lambda _: OUTPUTS, kind=kind)
        np.testing.assert_allclose(found, softmax_cross_entropy(OUTPUTS, BATCH), atol=1e-6)


def test_only_classes_that_both_know_are_compared():
    places = np.array([2, -1, 0, 4, -1])
    found = distillation(OUTPUTS, BATCH, teacher=teacher, weight=1.0, temperature=1.0, teacher_classes=places)
    p = jax.nn.softmax(jnp.asarray(FOUND["teacher_logits"], jnp.float32)[:, [0, 2, 3]])
    q = jax.nn.softmax(OUTPUTS["logits"][:, [2, 0, 4]])
    np.testing.assert_allclose(found, (p * (jnp.log(p) - jnp.log(q))).sum(-1), rtol=1e-4)
    fewer = distillation(OUTPUTS, BATCH, teacher=teacher, weight=1.0, temperature=1.0, teacher_classes=places, classes=[0, 2])
    p = jax.nn.softmax(jnp.asarray(FOUND["teacher_logits"], jnp.float32)[:, [0, 2]])
    q = jax.nn.softmax(OUTPUTS["logits"][:, [2, 0]])
    np.testing.assert_allclose(fewer, (p * (jnp.log(p) - jnp.log(q))).sum(-1), rtol=1e-4)
    with pytest.raises(JaxftError, match="knows none of the classes"):
        distillation(OUTPUTS, BATCH, teacher=teacher, teacher_classes=np.full(5, -1))


def test_maps_of_another_size_and_tokens_are_compared_where_they_lie():
    """A map that is constant over blocks of two by two is the smaller one, enlarged."""
    small = jax.random.uniform(jax.random.key(0), (6, 2, 2, 3)) + 0.5
    tokens = jnp.concatenate([jnp.full((6, 1, 3), 9.0), small.reshape(6, 4, 3)], axis=1)  # a class token first
    given = {**OUTPUTS, "stage1": small}
    found = feature_distillation(given, BATCH, teacher=lambda _: {"stage1": tokens}, weight=1000.0)
    np.testing.assert_allclose(found, softmax_cross_entropy(OUTPUTS, BATCH), atol=1e-6)
    large = jnp.repeat(jnp.repeat(small, 2, axis=1), 2, axis=2)
    apart = feature_distillation(given, BATCH, teacher=lambda _: {"stage1": large}, weight=1.0)
    assert apart.shape == (6,)
    np.testing.assert_allclose(apart, softmax_cross_entropy(OUTPUTS, BATCH), atol=0.05)


def test_rows_that_do_not_count_are_like_no_other():
    mask = jnp.array([1.0, 1, 1, 1, 0, 0])

    def of(maps):
        outputs, batch = {**OUTPUTS, "stage2": maps}, {**BATCH, "mask": mask}
        return feature_distillation(outputs, batch, teacher=teacher, kind="similarity")[:4]

    changed = OUTPUTS["stage2"].at[4:].set(7.0)
    np.testing.assert_allclose(of(OUTPUTS["stage2"]), of(changed), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (distillation, {"temperature": 0.0}, "temperature is 0.0: it must be positive"),
        (distillation, {"weight": 1.5}, "weight is 1.5: it must lie between 0 and 1"),
        (feature_distillation, {"kind": "hint"}, "kind is 'hint', not 'attention' or 'similarity'"),
        (feature_distillation, {"weight": -1.0}, "weight is -1.0"),
        (feature_distillation, {"stages": ("stage9",)}, "the network has no stage 'stage9'; both have stage1, stage2"),
    ],
)
def test_a_setting_that_does_not_fit_is_a_clear_error(loss, options, message):
    with pytest.raises(JaxftError, match=message):
        loss(OUTPUTS, BATCH, teacher=teacher, **options)


def test_a_teacher_without_a_stage_in_common_is_a_clear_error():
    with pytest.raises(JaxftError, match="no stage of one name"):
        feature_distillation(OUTPUTS, BATCH, teacher=lambda _: {"layer": OUTPUTS["stage1"]})
