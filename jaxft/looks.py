"""What a network sees of its training data: pictures before and after augmentation, as a run would make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxft.config import check_config
from jaxft.data import read_eval, row_batches
from jaxft.errors import JaxftError
from jaxft.plan import Plan, make_plan
from jaxft.report.grid import INK, Cell, draw_grid


def show_looks(config: ConfigDict, path: Path, *, examples: int = 6, looks: int = 6) -> str:
    """Draws examples of the training split: first as an evaluation shows them, then as each of some passes does.

    The same pixels as in a run of this config, but for examples that are mixed: their partners are those drawn here.

    Args:
      config: see `jaxft.config.default_config`.
      path: the PNG to write.
      examples: rows; evenly spaced in the split.
      looks: passes, from the first.

    Returns:
      A line on what was drawn.

    Raises:
      JaxftError: something in the config does not fit; the file cannot be written.
    """
    if examples < 1 or looks < 1:
        raise JaxftError(f"{examples} examples in {looks} looks cannot be drawn: give at least one of each")
    check_config(config)
    plan = make_plan(config, weights=False)
    if plan.model.in_channels not in (1, 3):
        raise JaxftError(f"pictures of {plan.model.in_channels} channels cannot be drawn, only of 1 or 3")
    source, channels = plan.splits.train, plan.model.in_channels
    chosen = np.unique(np.linspace(0, len(source) - 1, min(examples, len(source))).astype(int)).tolist()
    before = [read_eval(source[index][0], plan.model.preprocessing, channels) for index in chosen]
    rows = [[Cell(image, ((_label(source.labels[index], plan), INK),))] for image, index in zip(before, chosen, strict=True)]
    batches = row_batches(
        source,
        plan.model.preprocessing,
        ([shown * len(source) + index for index in chosen] for shown in range(looks)),
        batch_size=len(chosen),
        augment=plan.augment,
        seed=config.seed,
        channels=channels,
        threads=config.input.threads,
        processes=config.input.processes,
        scaled_decode=config.input.scaled_decode,
    )
    prepare = jax.jit(plan.augment_batch)
    for batch in batches:
        found = prepare({**batch, "label": source.labels[batch["index"]]})
        images = np.clip(np.round(np.asarray(found["image"], np.float32)), 0, 255).astype(np.uint8)
        for row, image, label in zip(rows, images, np.asarray(found["label"]), strict=True):
            row.append(Cell(image, ((_label(label, plan), INK),)))
    try:
        heads = ["evaluation", *(f"training, pass {shown}" for shown in range(looks))]
        draw_grid(path, rows, columns=len(heads), heads=heads)
    except OSError as error:
        raise JaxftError(f"cannot write {path}: {error.strerror}") from error
    side = plan.model.preprocessing.size
    return f"{path}: {len(rows)} of {len(source)} training examples at {side}x{side} pixels, before and after: {plan.augment}"


def _label(label: Any, plan: Plan) -> str:
    """A label as a person writes it; of mixed ones the classes by their shares."""
    names = plan.splits.class_names
    if not names:
        return ""
    if np.ndim(label) == 0:
        return names[int(label)] if np.issubdtype(np.asarray(label).dtype, np.integer) else f"{float(label):.4g}"
    order = [number for number in np.argsort(-label, kind="stable") if label[number] > 0.005]
    shares = [names[number] if label[number] > 0.995 else f"{names[number]} {label[number]:.0%}" for number in order]
    return " + ".join(shares) or "none"
