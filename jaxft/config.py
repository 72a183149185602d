"""The sections of a run's configuration, their defaults, and how they are checked.

A recipe starts from `default_config()` and sets what it needs, so every key exists and has a type: a misspelt one is an
error in a recipe, on the command line and from Python alike. Each section becomes keyword arguments of one function.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxft.errors import JaxftError, near


def default_config() -> ConfigDict:
    """Returns a configuration with every key and its default; `None` defaults are typed placeholders."""
    config = ConfigDict()
    config.seed = 0

    # jaxft.create_model. The number of classes comes from the data.
    config.model = ConfigDict()
    config.model.name = "efficientnet_lite0"  # of `jaxft models`, a repository, or "module:function": see jaxft.models.build
    config.model.pretrained = "imagenet"  # a tag, a file, a URL, `package:`, `hf:`; "" starts from random weights
    config.model.head = "linear"  # or "mlp"
    config.model.in_channels = 3
    config.model.dropout = config_dict.placeholder(float)
    config.model.drop_path = config_dict.placeholder(float)
    config.model.dtype = "float32"  # what is computed in; parameters are float32
    config.model.remat = ""  # "all", "stage1,stage2": compute again in the backward pass what is inside a block: less memory
    config.model.size = config_dict.placeholder(int)  # pixels; None: the size that goes with the weights

    # jaxft.data.open_data.
    config.data = ConfigDict()
    config.data.source = ""  # a folder, `csv:FILE`, `tfds:NAME`, ...: see open_data
    config.data.task = "classify"  # or "multilabel", "soft", "regression"
    config.data.val_fraction = 0.1
    config.data.test_fraction = 0.1
    config.data.split_seed = 0
    config.data.max_bad_fraction = 0.0
    config.data.data_dir = config_dict.placeholder(str)  # where tfds keeps its data sets
    config.data.group = config_dict.placeholder(str)  # a column, or a regular expression over names: never split up

    # jaxft.data.train_batches and eval_batches.
    config.input = ConfigDict()
    config.input.batch_size = 32  # over all devices
    config.input.eval_batch_size = 64
    config.input.sampler = "shuffle"  # every example once an epoch; "balanced", "sqrt": by class, see jaxft.data.order
    config.input.augment = "crop_flip"  # jaxft.augment.parse: "random_resized_crop(0.5), random_flip, module:function"
    config.input.threads = config_dict.placeholder(int)  # None: one a core, at most 16
    config.input.processes = 0  # that decode in the place of threads: for many cores and small pictures
    config.input.scaled_decode = True  # training decodes JPEGs much larger than wanted at a fraction of their size

    # jaxft.features: what the frozen stages before the first trained one give is computed once and kept in files.
    config.features = ConfigDict()
    config.features.cache = False
    config.features.views = 1  # looks of an example under input.augment that are kept; epochs show them in turn
    config.features.dtype = "float32"  # or "bfloat16": half the room
    config.features.dir = config_dict.placeholder(str)  # None: `features` in the workdir; runs may share a folder

    # jaxft.losses.resolve: a name of jaxft.losses or "module:function"; "" is the task's own. `options` are its keyword
    # arguments, whatever they are called: class_weights="balanced", gamma=2.0.
    config.loss = ConfigDict()
    config.loss.name = ""
    config.loss.options = ConfigDict()

    # jaxft.optim.make_optimizer; each phase may override any of it.
    config.optim = ConfigDict()
    config.optim.name = "adamw"
    config.optim.lr = 1e-3
    config.optim.schedule = "cosine"
    config.optim.warmup = "0 steps"
    config.optim.end_lr = 0.0
    config.optim.step_every = config_dict.placeholder(str)
    config.optim.step_factor = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = False
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.eps = 1e-8
    config.optim.weight_decay = 0.0
    config.optim.decay_norms_and_biases = False
    config.optim.clip_norm = config_dict.placeholder(float)
    config.optim.options = ConfigDict()

    # Phases run one after the other, in the order of their names. `train` and `freeze`: see jaxft.tuning.FreezeSpec.
    config.phases = ConfigDict()
    config.phases.phase1 = phase()

    config.train = ConfigDict()
    config.train.accum_steps = 1
    config.train.ema_decay = config_dict.placeholder(float)
    config.train.log_every = "20 steps"
    config.train.eval_every = "1 epochs"
    config.train.checkpoint_every = config_dict.placeholder(str)  # besides every evaluation
    config.train.monitor = "accuracy"  # what early stopping and the best checkpoint look at, on the validation split
    config.train.mode = "max"
    config.train.patience = config_dict.placeholder(int)  # evaluations without a gain before a phase ends early
    config.train.min_delta = 0.0

    config.train.nonfinite = "stop"  # a step whose loss or gradient is NaN or infinite ends the run; or "skip", "rollback"

    # jaxft.parallel: which device holds what. Nothing here but batch_norm and frozen_dtype changes what is computed.
    config.parallel = ConfigDict()
    config.parallel.mesh = ""  # "data=4,fsdp=2,tensor=1" or "4x2x1", * for what is left; "": all devices on data
    config.parallel.rules = ""  # "GLOB:ACTION, ..." before jaxft.parallel.DEFAULT_RULES
    config.parallel.frozen = "shard"  # frozen parameters by the rules, as trained ones; or "replicate": whole everywhere
    config.parallel.frozen_dtype = "float32"  # or "bfloat16": kernels that no phase trains are kept in half the room
    config.parallel.batch_norm = "global"  # statistics of the whole batch; or "replica": of each part, as torch's DDP
    config.parallel.lost_after = 60.0  # seconds without a sign of life after which a process is lost and the others end

    config.log = ConfigDict()
    config.log.tensorboard = True
    config.log.wandb_project = ""
    return config


def phase(*, train: str = "full", freeze: str = "", length: str = "5 epochs", **optim: Any) -> ConfigDict:
    """A phase: what trains, for how long, and which of the optimizer's settings differ from `config.optim`."""
    section = ConfigDict({"train": train, "freeze": freeze, "length": length})
    section.lr = config_dict.placeholder(float)
    section.optim = ConfigDict()
    for key, value in optim.items():
        if key == "lr":
            section.lr = value
        else:
            section.optim[key] = value
    return section


def check_config(config: ConfigDict) -> None:
    """Raises JaxftError for a section or key that `default_config` does not have, naming the nearest one."""
    known = default_config()
    known.phases = ConfigDict()
    _check(config, known, "config")
    for name, section in config.phases.items():
        where = f"config.phases.{name}"
        if not isinstance(section, ConfigDict):
            raise JaxftError(f"{where} is {section!r}, not a section: make it with jaxft.config.phase()")
        _check(section, phase(), where)
        for key in section.optim:
            if key not in known.optim:
                raise JaxftError(f"{where}.optim has no key '{key}'{near(key, known.optim)}")


def _check(given: ConfigDict, known: ConfigDict, where: str) -> None:
    """A section that is empty in `known` takes any key."""
    for key in given:
        if key not in known:
            raise JaxftError(f"{where} has no key '{key}'{near(key, known)}")
    for key, section in known.items():
        if key not in given:
            raise JaxftError(f"{where} lacks '{key}': start a recipe from jaxft.config.default_config()")
        if isinstance(section, ConfigDict):
            if not isinstance(given[key], ConfigDict):
                raise JaxftError(f"{where}.{key} is {given[key]!r}, not a section")
            if section:
                _check(given[key], section, f"{where}.{key}")


def find_key(keys: Sequence[str], config: ConfigDict) -> Any:
    """What stands at a path; ml_collections' own message for an unknown key names neither the section nor what is near."""
    section, where = config, "config"
    for key in keys:
        if not isinstance(section, ConfigDict):
            raise JaxftError(f"{where} is a value, not a section: {'.'.join(['config', *keys])} does not exist")
        if key not in section:
            raise JaxftError(f"{where} has no key '{key}'{near(key, section.keys())}")
        section, where = section[key], f"{where}.{key}"
    return section


def call(function: Callable[..., Any], section: Mapping[str, Any], where: str, **more: Any) -> Any:
    """Calls `function` with a section's keys as keyword arguments; a key it does not take is an error naming both."""
    arguments = {**section, **more}
    taken = inspect.signature(function).parameters
    for key in arguments:
        if key not in taken:
            raise JaxftError(f"{where}.{key} is not an argument of {function.__name__}{near(key, taken)}")
    return function(**arguments)


_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(steps?|epochs?|examples?)\s*")


@dataclasses.dataclass(frozen=True)
class Clock:
    """Turns durations in steps, epochs or examples into steps."""

    examples: int
    batch_size: int

    def steps(self, duration: str | int, where: str) -> int:
        """`duration` is "200 steps", "2 epochs", "0.5 epochs", "10000 examples", or an int of steps."""
        if isinstance(duration, int):
            return duration
        found = _DURATION.fullmatch(str(duration))
        if not found:
            raise JaxftError(f"{where} is '{duration}': a duration is written '200 steps', '2 epochs' or '5000 examples'")
        amount, unit = float(found[1]), found[2].rstrip("s")
        if unit == "step":
            if not amount.is_integer():
                raise JaxftError(f"{where} is '{duration}': steps are whole")
            return int(amount)
        examples = amount * self.examples if unit == "epoch" else amount
        return max(1, round(examples / self.batch_size)) if amount else 0


def to_json(config: ConfigDict) -> str:
    """The whole configuration as JSON text, keys sorted."""
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2, sort_keys=True)


#: Keys that a continued run may change: where things lie, not what is computed.
PLACEMENT = ("config.parallel.mesh", "config.parallel.rules", "config.parallel.frozen", "config.parallel.lost_after")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "config") -> list[str]:
    """One line for each key whose value differs between two configurations (as plain dicts), but for `PLACEMENT`."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if f"{where}.{key}" in PLACEMENT:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{where}.{key}")
        elif before != after:
            lines.append(f"{where}.{key} was {before!r}, is {after!r}")
    return lines
