"""Which search finds the minimum of a logistic regression, and how long it takes: optax's L-BFGS in one compiled loop, as in
`jaxft.probe`, against SciPy's L-BFGS-B that calls a compiled value and gradient; in float64 and float32.

    python benchmarks/probe_solvers.py

The features are scikit-learn's digits, standardised, [1797, 64] of ten classes. The error is the largest one of a probability,
against scikit-learn's LogisticRegression with tol=1e-10. Needs scikit-learn. Compilation is not counted.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jaxft.evaluate.scores import softmax
from jaxft.probe import logistic_regression

STRENGTHS = (1e-3, 1.0, 1e3)


def ours(x, y, C, dtype):
    options = {"C": C, "dtype": dtype}
    logistic_regression(x, y, max_steps=1, **options)
    start = time.perf_counter()
    found = logistic_regression(x, y, **options)
    return found.logits(x), found.steps, time.perf_counter() - start


def with_scipy(x, y, C, dtype):
    shape = (x.shape[1] + 1, int(y.max()) + 1)
    with jax.enable_x64(dtype == "float64"):
        rows, count = jnp.asarray(x, dtype), len(x)

        def objective(weights):
            logits = rows @ weights[:-1] + weights[-1]
            losses = jax.nn.logsumexp(logits, -1) - logits[jnp.arange(count), y]
            return losses.mean() + 0.5 * (weights[:-1] ** 2).sum() / (C * count)

        compiled = jax.jit(jax.value_and_grad(objective))

        def both(flat):
            value, gradient = compiled(jnp.asarray(flat.reshape(shape), dtype))
            return float(value), np.asarray(gradient, np.float64).ravel()

        begin = np.zeros(shape).ravel()
        both(begin)
        start = time.perf_counter()
        options = {"maxiter": 1000, "maxfun": 10_000, "gtol": 1e-8 if dtype == "float64" else 1e-5, "ftol": 0.0}
        found = scipy.optimize.minimize(both, begin, jac=True, method="L-BFGS-B", options=options)
        seconds = time.perf_counter() - start
    weights = found.x.reshape(shape)
    return x @ weights[:-1] + weights[-1], int(found.nit), seconds


def main():
    x, y = load_digits(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    print("| C | search | steps | seconds | error |\n|---|---|---|---|---|")
    for C in STRENGTHS:
        expected = LogisticRegression(C=C, tol=1e-10, max_iter=20_000).fit(x, y).predict_proba(x)
        for name, search in (("optax", ours), ("SciPy", with_scipy)):
            for dtype in ("float64", "float32"):
                logits, steps, seconds = search(x, y, C, dtype)
                error = np.abs(softmax(logits) - expected).max()
                print(f"| {C:g} | {name}, {dtype} | {steps} | {seconds:.2f} | {error:.0e} |", flush=True)


if __name__ == "__main__":
    main()
