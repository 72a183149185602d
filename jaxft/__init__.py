"""jaxft: fine-tune pretrained vision networks in JAX and Flax.

The names below are loaded when first used: `import jaxft` is quick and imports neither JAX nor Flax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "FreezeSpec": "jaxft.tuning",
    "JaxftError": "jaxft.errors",
    "Preprocessing": "jaxft.preprocessing",
    "create_model": "jaxft.weights",
    "create_state": "jaxft.train",
    "default_config": "jaxft.config",
    "eval_batches": "jaxft.data",
    "export_run": "jaxft.export",
    "finetune": "jaxft.api",
    "freeze_updates": "jaxft.tuning",
    "keep_statistics": "jaxft.tuning",
    "gradual": "jaxft.config",
    "list_models": "jaxft.models",
    "load_run": "jaxft.workdir",
    "lr_find": "jaxft.range_test",
    "make_eval_step": "jaxft.train",
    "make_mask": "jaxft.tuning",
    "make_optimizer": "jaxft.optim",
    "make_train_step": "jaxft.train",
    "on_pixels": "jaxft.preprocessing",
    "open_data": "jaxft.data",
    "phase": "jaxft.config",
    "predict_files": "jaxft.predict",
    "select_files": "jaxft.active",
    "sweep": "jaxft.search",
    "train_batches": "jaxft.data",
    "update_statistics": "jaxft.train",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from jaxft.active import select_files as select_files
    from jaxft.api import finetune as finetune
    from jaxft.config import default_config as default_config
    from jaxft.config import gradual as gradual
    from jaxft.config import phase as phase
    from jaxft.data import eval_batches as eval_batches
    from jaxft.data import open_data as open_data
    from jaxft.data import train_batches as train_batches
    from jaxft.errors import JaxftError as JaxftError
    from jaxft.export import export_run as export_run
    from jaxft.models import list_models as list_models
    from jaxft.optim import make_optimizer as make_optimizer
    from jaxft.predict import predict_files as predict_files
    from jaxft.preprocessing import Preprocessing as Preprocessing
    from jaxft.preprocessing import on_pixels as on_pixels
    from jaxft.range_test import lr_find as lr_find
    from jaxft.search import sweep as sweep
    from jaxft.train import create_state as create_state
    from jaxft.train import make_eval_step as make_eval_step
    from jaxft.train import make_train_step as make_train_step
    from jaxft.train import update_statistics as update_statistics
    from jaxft.tuning import FreezeSpec as FreezeSpec
    from jaxft.tuning import freeze_updates as freeze_updates
    from jaxft.tuning import keep_statistics as keep_statistics
    from jaxft.tuning import make_mask as make_mask
    from jaxft.weights import create_model as create_model
    from jaxft.workdir import load_run as load_run


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'jaxft' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
