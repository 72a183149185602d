"""What tells optimizers apart: how a gradient becomes a direction, and where weight decay enters."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxft import tree
from jaxft.errors import JaxftError, near
from jaxft.optim.moments import by_label
from jaxft.typing import Params

#: What is told of a leaf to optimizers that do not treat all alike: (shape, whether it belongs to the new head).
Leaves = Mapping[str, tuple[tuple[int, ...], bool]]


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer without its rate.

    Attributes:
      core: its settings (keyword arguments, with its own defaults) -> a transform of each leaf by itself.
      decoupled: weight decay is added to the direction (Loshchilov & Hutter, 2019), not to the gradient.
      trust: "" or "after": the direction, decay included, gets the length of the weights it changes (LAMB); "before": the
        gradient gets a share of that length first (LARS).
      free: averages by itself, and needs no schedule (see `jaxft.optim`).
    """

    core: Callable[..., optax.GradientTransformation]
    decoupled: bool = False
    trust: str = ""
    free: bool = False


def _sgd(*, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    if not 0 <= momentum < 1:
        raise JaxftError(f"momentum is {momentum}: it must lie in [0, 1)")
    return optax.trace(momentum, nesterov=nesterov) if momentum else optax.identity()


def _lars(*, momentum: float = 0.9, nesterov: bool = False, trust: float = 1e-3) -> optax.GradientTransformation:
    if not trust > 0:
        raise JaxftError(f"trust of optimizer 'lars' is {trust}: it must be positive")
    return _sgd(momentum=momentum, nesterov=nesterov)


def _adam(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps)


def _lamb(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps)


def _adamax(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_adamax(b1, b2, eps)


def _lion(*, b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1, b2)


def _rmsprop(
    *, b2: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, centered: bool = False
) -> optax.GradientTransformation:
    # eps is added to the root, as in torch, not under it.
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    return optax.chain(scale(b2, eps, eps_in_sqrt=False), _sgd(momentum=momentum))


def _adafactor(*, decay: float = 0.8, clip: float = 1.0, min_size: int = 128) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=decay, min_dim_size_to_factor=min_size),
        optax.clip_by_block_rms(clip),
        optax.scale_by_param_block_rms(1e-3),
    )


class NadamState(NamedTuple):
    """Moments, their steps, and the product of the momenta so far."""

    steps: jax.Array
    mu: Params
    nu: Params
    product: jax.Array


def _nadam(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, momentum_decay: float = 4e-3
) -> optax.GradientTransformation:
    """Nesterov's momentum in Adam with a momentum that rises (Dozat, 2016): `torch.optim.NAdam`. optax's is constant."""

    def momentum(step: jax.Array) -> jax.Array:
        return b1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))

    def init(params: Params) -> NadamState:
        zeros = lambda: jax.tree.map(jnp.zeros_like, dict(params))
        return NadamState(jnp.zeros((), jnp.int32), zeros(), zeros(), jnp.ones((), jnp.float32))

    def update(updates: Params, state: NadamState, params: Params | None = None) -> tuple[Params, NadamState]:
        del params
        steps = optax.safe_increment(state.steps)
        now, later = momentum(steps), momentum(steps + 1)
        product = state.product * now
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        own, ahead = (1 - now) / (1 - product), later / (1 - product * later)
        root = lambda square: jnp.sqrt(square / (1 - b2**steps)) + eps
        made = jax.tree.map(lambda g, m, v: (own * g + ahead * m) / root(v), updates, mu, nu)
        return made, NadamState(steps, mu, nu, product)

    return optax.GradientTransformation(init, update)


def _muon(
    leaves: Leaves,
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    ns_steps: int = 5,
    rms: float | None = 0.2,
) -> optax.GradientTransformation:
    """Muon (Jordan et al., 2024) for kernels; Adam for all else: the head, what embeds the image, norms, biases.

    A convolution's kernel [H, W, C, O] is a matrix of H * W * C by O. Depthwise kernels have no matrix: Adam. With `rms`, 0.2
    as in Liu et al., 2025, the updates are as long as Adam's, and one rate serves both; with None they are
    `sqrt(max(1, O / I))` times the orthogonal matrix, as in the original.
    """

    def matrix(path: str) -> bool:
        shape, new = leaves[path]
        kernel = path.endswith("kernel") and (len(shape) == 2 or (len(shape) == 4 and shape[-2] > 1))
        return kernel and not new and "patch_embed" not in path.split("/")

    def factor(leaf: Any) -> float:
        inputs, outputs = math.prod(leaf.shape[:-1]), leaf.shape[-1]
        return math.sqrt(max(1.0, outputs / inputs)) if rms is None else rms * math.sqrt(max(inputs, outputs))

    def axes(updates: Params) -> Any:
        return jax.tree.map(
            lambda leaf: optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,)), updates
        )

    scaled = optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: leaf * factor(leaf), updates))
    muon = optax.contrib.scale_by_muon(
        ns_steps=ns_steps, beta=momentum, eps=eps, nesterov=nesterov, weight_dimension_numbers=axes
    )
    kinds = {path: "muon" if matrix(path) else "adam" for path in leaves}
    return by_label({"muon": optax.chain(muon, scaled), "adam": optax.scale_by_adam(b1, b2, eps)}, kinds)


def _schedule_free_sgd(*, b1: float = 0.9) -> optax.GradientTransformation:
    _check_free(b1)
    return optax.identity()


def _schedule_free_adamw(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    _check_free(b1)
    return optax.scale_by_adam(0.0, b2, eps)  # b1 is that of the averages


def _check_free(b1: float) -> None:
    if not 0 < b1 < 1:
        raise JaxftError(f"b1 is {b1}: that of a schedule-free optimizer must lie between 0 and 1")


METHODS = {
    "sgd": Method(_sgd),
    "adam": Method(_adam),
    "adamw": Method(_adam, decoupled=True),
    "nadam": Method(_nadam),
    "nadamw": Method(_nadam, decoupled=True),
    "adamax": Method(_adamax),
    "rmsprop": Method(_rmsprop),
    "lamb": Method(_lamb, decoupled=True, trust="after"),
    "lars": Method(_lars, trust="before"),
    "lion": Method(_lion, decoupled=True),
    "muon": Method(_muon, decoupled=True),
    "adafactor": Method(_adafactor, decoupled=True),
    "schedule_free_sgd": Method(_schedule_free_sgd, free=True),
    "schedule_free_adamw": Method(_schedule_free_adamw, decoupled=True, free=True),
}


def is_set(value: Any) -> bool:
    """Whether a setting asks for something. Zero does."""
    return value is not None and value is not False


def settings_of(name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an optimizer: those given, and its own defaults.

    Args:
      name: a key of `METHODS`.
      given: momentum, nesterov, b1, b2, eps; None is the optimizer's own.
      options: further ones, by name.

    Raises:
      JaxftError: one that it does not have.
    """
    parameters = inspect.signature(METHODS[name].core).parameters
    own = {key: value.default for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}
    further = [key for key in own if key not in given]
    for key, value in given.items():
        if is_set(value) and key not in own:
            raise JaxftError(f"optimizer '{name}' has no {key}; it has {', '.join(own)}")
    for key in options:
        if key not in further:
            takes = f"its options are {', '.join(further)}" if further else "it takes none"
            raise JaxftError(f"optimizer '{name}' has no option '{key}'{near(key, further)}; {takes}")
    chosen = {key: value for key, value in given.items() if key in own and value is not None}
    return {**own, **chosen, **options}


#: Whose momentum "onecycle" can cycle, and what it is called there.
CYCLED = {"sgd": "momentum", "lars": "momentum", "adam": "b1", "adamw": "b1", "lamb": "b1"}


def cycled_core(name: str, settings: Mapping[str, Any], momentum: Callable[[Any], Any]) -> optax.GradientTransformation:
    """The transform of an optimizer with a momentum that is a function of the step.

    Args:
      name: a key of `METHODS`.
      settings: of `settings_of`.
      momentum: of `jaxft.optim.schedules.momentum_cycle`.

    Raises:
      JaxftError: an optimizer whose momentum is not cycled.
    """
    if name not in CYCLED:
        raise JaxftError(
            f"schedule_options.cycle_momentum is for {', '.join(CYCLED)}, not for optimizer '{name}': set it to False"
        )
    if CYCLED[name] == "momentum":
        return optax.inject_hyperparams(optax.trace)(momentum, nesterov=settings["nesterov"])
    adam = optax.inject_hyperparams(optax.scale_by_adam, static_args=("b2", "eps", "eps_root"))
    return adam(momentum, settings["b2"], settings["eps"])


def make_core(
    name: str, settings: Mapping[str, Any], params: Params, head: Collection[str] = ()
) -> optax.GradientTransformation:
    """The transform of an optimizer, each leaf by itself.

    Args:
      name: a key of `METHODS`.
      settings: of `settings_of`.
      params: what it is for, arrays or abstract.
      head: '/' paths of leaves of the new head.
    """
    if name != "muon":
        return METHODS[name].core(**settings)
    leaves = {path: (tuple(leaf.shape), path in head) for path, leaf in tree.flatten(params).items()}
    return _muon(leaves, **settings)
