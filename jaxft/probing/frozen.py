"""The features of a split under the frozen network, kept in files: computed once, read by every later probe."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxft.data import Source
from jaxft.data.sources import fingerprint
from jaxft.features import DTYPES, Prefix, Rows, Views, about, fill, frozen_prefix
from jaxft.inputs import features_folder
from jaxft.parallel import batch_parts
from jaxft.plan import Plan
from jaxft.tuning import FreezeSpec, make_mask
from jaxft.typing import ModelState, Params


@dataclasses.dataclass(frozen=True)
class Frozen:
    """The network up to its head, and where its features are kept."""

    plan: Plan
    config: ConfigDict
    mesh: Mesh
    params: Params
    model_state: ModelState
    workdir: Path
    say: Callable[[str], None]

    @functools.cached_property
    def prefix(self) -> Prefix:
        model = self.plan.model
        mask = make_mask(FreezeSpec.parse("head", ()), self.plan.params, model.stages)
        found = frozen_prefix(model, mask, self.plan.params, self.plan.model_state)
        assert found is not None  # the head is the last of several stages
        return found

    @functools.cached_property
    def run(self) -> Callable[..., jax.Array]:
        """(params, model_state, pixels) -> features; compiled once for all splits."""
        return jax.jit(self.prefix.run(DTYPES[self.config.features.dtype]))

    def features(self, split: str, source: Source) -> np.ndarray:
        """[N, D] of every example of a split as an evaluation shows it, in the order of the source.

        A map of a network whose head reads one (SqueezeNet) is averaged over its places.

        Raises:
          JaxftError, SaveError: see `jaxft.features`.
        """
        prefix, given = self.prefix, self.config.input
        parts, dtype = batch_parts(self.mesh), self.config.features.dtype
        rows = Rows(
            features_folder(self.workdir, self.config),
            f"{split}-{self.plan.model.name}-head",
            # The split's own fingerprint: validation and test features serve for any number of training examples.
            about(
                prefix, self.params, self.model_state, source, Views(), split=split, seed=self.config.seed,
                data=fingerprint({split: source}, self.plan.splits.class_names),
            ),
            shape=(len(source), *prefix.shape),
            dtype=dtype,
            block=-(-given.eval_batch_size // parts) * parts,
        )  # fmt: skip
        if rows.damaged:
            self.say(f"features: {rows.damaged} damaged blocks in {rows.path} are computed again")
        shape, there = "x".join(map(str, prefix.shape)), "" if rows.missing else ", computed before"
        self.say(f"features of {split}: {len(source):,} x {shape} {dtype} in {rows.path}{there}")
        fill(
            rows, lambda batch: self.run(self.params, self.model_state, batch["image"]), source, Views(),
            model=self.plan.model, seed=self.config.seed, mesh=self.mesh, threads=given.threads, processes=given.processes,
            say=self.say, stop=lambda: False,
        )  # fmt: skip
        found = rows.read()
        return found if found.ndim == 2 else found.astype(np.float32).mean(tuple(range(1, found.ndim - 1)))
