"""The pure steps: state and batch in, state and metrics out. The caller jits, donates and shards."""

from jaxft.train.average import Average, averaged_part, ema, swa, with_averages
from jaxft.train.objective import make_objective
from jaxft.train.state import TrainState, averages, create_state, eval_weights, last_params
from jaxft.train.statistics import update_statistics
from jaxft.train.step import make_eval_step, make_train_step, remat_options

__all__ = [
    "Average",
    "TrainState",
    "averaged_part",
    "averages",
    "create_state",
    "ema",
    "eval_weights",
    "last_params",
    "make_eval_step",
    "make_objective",
    "make_train_step",
    "remat_options",
    "swa",
    "update_statistics",
    "with_averages",
]
