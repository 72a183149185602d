"""Neighbours and prototypes are those of scikit-learn and of the formulas, in blocks and on devices."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from jaxft.errors import JaxftError
from jaxft.parallel import make_mesh
from jaxft.probe import knn_scores, nearest, prototype_logits, prototypes

X, Y = load_digits(return_X_y=True)
BANK, LABELS, QUERIES = X[:300], Y[:300], X[300:437]

pytestmark = pytest.mark.usefixtures("quick_compiles")


def test_votes_are_those_of_scikit_learns_neighbours_weighted_by_the_exponential():
    found = knn_scores(BANK, LABELS, QUERIES, [1, 5, 300], classes=10)
    assert list(found) == [1, 5, 300]
    for k, shares in found.items():
        # scikit-learn's cosine distance is 1 - s.
        reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
        np.testing.assert_allclose(shares, reference.fit(BANK, LABELS).predict_proba(QUERIES), atol=1e-5)


def test_votes_do_not_depend_on_blocks_and_devices(monkeypatch):
    expected = knn_scores(BANK, LABELS, QUERIES, [3, 20], classes=10, temperature=0.5)
    for at_once, devices in ((1, 1), (300 * 10, 1), (1, 8), (300 * 10, 3)):
        monkeypatch.setattr(nearest, "_AT_ONCE", at_once)
        mesh = make_mesh(devices=jax.devices()[:devices])
        found = knn_scores(BANK, LABELS, QUERIES, [3, 20], classes=10, temperature=0.5, mesh=mesh)
        for k, shares in expected.items():
            np.testing.assert_allclose(found[k], shares, atol=1e-6)


def test_a_small_temperature_overflows_nowhere_and_is_the_nearest_alone():
    found = knn_scores(BANK, LABELS, QUERIES, [1, 50], classes=10, temperature=1e-5)
    assert np.isfinite(found[50]).all()
    np.testing.assert_array_equal(found[1].argmax(-1), found[50].argmax(-1))


def test_a_picture_without_features_gets_votes_that_sum_to_one():
    found = knn_scores(BANK, LABELS, np.zeros((1, 64)), [4], classes=10)[4]
    np.testing.assert_allclose(found.sum(), 1)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_the_nearest_class_mean_is_that_of_scikit_learn():
    means = prototypes(BANK, LABELS, 10)
    reference = NearestCentroid().fit(BANK, LABELS)
    np.testing.assert_allclose(means, reference.centroids_)
    logits = prototype_logits(means, QUERIES)
    np.testing.assert_allclose(logits, -((QUERIES[:, None] - means) ** 2).sum(-1), rtol=1e-9)
    np.testing.assert_array_equal(logits.argmax(-1), reference.predict(QUERIES))


def test_cosine_prototypes_are_the_formula_and_a_class_without_examples_is_never_near():
    means = prototypes(BANK, LABELS, 11)
    logits = prototype_logits(means, QUERIES, "cosine", scale=3)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(logits[:, :10], 3 * unit(QUERIES) @ unit(means[:10]).T)
    for metric in ("cosine", "euclidean"):
        assert (prototype_logits(means, QUERIES, metric)[:, 10] == -np.inf).all()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (LABELS, {"neighbors": [301]}, r"k is \[301\]: each must lie between 1 and the 300 examples"),
        (LABELS, {"neighbors": []}, "k is"),
        (LABELS, {"temperature": 0}, "temperature is 0"),
        (LABELS, {"classes": 9}, "labels go from 0 to 9, of 9 classes"),
        (LABELS / 1, {}, r"labels are float64 \[300\], not class numbers \[300\]"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(labels, options, message):
    with pytest.raises(JaxftError, match=message):
        knn_scores(BANK, labels, QUERIES, **{"neighbors": [1], "classes": 10, **options})
    with pytest.raises(JaxftError, match="the metric is 'l1'"):
        prototype_logits(prototypes(BANK, LABELS, 10), QUERIES, "l1")
