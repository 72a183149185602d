"""The pure steps: state and batch in, state and metrics out. The caller jits, donates and shards."""

from jaxft.train.state import TrainState, averages, create_state, eval_params, last_params
from jaxft.train.step import make_eval_step, make_objective, make_train_step, remat_options

__all__ = [
    "TrainState",
    "averages",
    "create_state",
    "eval_params",
    "last_params",
    "make_eval_step",
    "make_objective",
    "make_train_step",
    "remat_options",
]
