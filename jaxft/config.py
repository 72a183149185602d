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

#: Sections that take any key, as only what gets them knows their names and types.
FREE_SECTIONS = ("options", "schedule_options")


def default_config() -> ConfigDict:
    """Returns a configuration with every key and its default; `None` defaults are typed placeholders."""
    config = ConfigDict()
    config.seed = 0

    # jaxft.create_model. The number of classes comes from the data.
    config.model = ConfigDict()
    config.model.name = "efficientnet_lite0"  # of `jaxft models`, a repository, or "module:function": see jaxft.models.build
    config.model.pretrained = "imagenet"  # a tag, a file, a URL, `package:`, `hf:`, `run:WORKDIR`; "": random weights
    # "linear"; "mlp"; "cosine", "cosine:512" (of features of length 1, projected before); several, "linear+mlp"; "mae".
    config.model.head = "linear"
    config.model.outputs = config_dict.placeholder(int)  # None: as many as classes; 128 where a representation is learnt
    config.model.zero_shot = ""  # an .npz of text embeddings: the head begins as what they tell classes by (docs/few-labels.md)
    config.model.in_channels = 3
    config.model.dropout = config_dict.placeholder(float)
    config.model.drop_path = config_dict.placeholder(float)
    config.model.dtype = "float32"  # what is computed in; parameters are float32
    config.model.remat = ""  # "all", "stage1,stage2": compute again in the backward pass what is inside a block: less memory
    config.model.size = config_dict.placeholder(int)  # pixels; None: the size that goes with the weights

    # jaxft.data.open_data.
    config.data = ConfigDict()
    config.data.source = ""  # a folder, `csv:FILE`, `tfds:NAME`, ...: see open_data
    config.data.task = "classify"  # or "multilabel", "soft", "regression", "unlabelled" (docs/self-supervised.md)
    config.data.val_fraction = 0.1
    config.data.test_fraction = 0.1
    config.data.split_seed = 0
    config.data.max_bad_fraction = 0.0
    config.data.data_dir = config_dict.placeholder(str)  # where tfds keeps its data sets
    config.data.group = config_dict.placeholder(str)  # a column, or a regular expression over names: never split up
    config.data.per_class = config_dict.placeholder(int)  # use so many training pictures of each class, drawn by split_seed
    config.data.classes = config_dict.placeholder(tuple)  # all classes of the head, where these data have only some
    config.data.replay = config_dict.placeholder(tuple)  # sources of earlier tasks, whose training pictures join these
    config.data.replay_per_class = 20
    config.data.unlabelled = ""  # pictures to learn from without labels: a source, any folder, or "rest", what per_class leaves

    # jaxft.data.train_batches and eval_batches.
    config.input = ConfigDict()
    config.input.batch_size = 32  # over all devices
    config.input.eval_batch_size = 64
    config.input.sampler = "shuffle"  # every example once an epoch; "balanced", "sqrt": by class, see jaxft.data.order
    config.input.views = 1  # of each example in a batch, which then holds batch_size / views examples: for losses that compare
    config.input.augment = "crop_flip"  # jaxft.augment.parse: "random_resized_crop(0.5), random_flip, module:function"
    config.input.unlabelled_ratio = 7  # of data.unlabelled a batch has so many times batch_size, in two looks: augment's and
    config.input.strong_augment = "crop_flip, rand_augment(2, 10), random_erasing(1.0)"  # this (docs/few-labels.md)
    config.input.threads = config_dict.placeholder(int)  # None: one a core, at most 16
    config.input.processes = 0  # that decode in the place of threads: for many cores and small pictures
    config.input.scaled_decode = True  # training decodes JPEGs much larger than wanted at a fraction of their size

    # jaxft.features: what the frozen stages before the first trained one give is computed once and kept in files.
    config.features = ConfigDict()
    config.features.cache = False
    config.features.views = 1  # looks of an example under input.augment that are kept; epochs show them in turn
    config.features.dtype = "float32"  # or "bfloat16": half the room
    config.features.dir = config_dict.placeholder(str)  # None: `features` in the workdir; runs may share a folder

    # jaxft.probing: what `jaxft probe` tries on the features of the frozen network.
    config.probe = ConfigDict()
    config.probe.standardize = True  # the linear probe sees features of mean 0 and standard deviation 1
    config.probe.c_min = 1e-6  # C, the strength of the data against the penalty of the weights, is tried at `c_count` values
    config.probe.c_max = 1e5  # from here to there, evenly in the logarithm
    config.probe.c_count = 45
    config.probe.max_steps = 1000  # of L-BFGS for each C
    config.probe.refit = "train"  # what the chosen setting is fitted to for good; or "train+val"
    config.probe.neighbors = "1,2,5,10,20,50,100,200"  # the numbers of neighbours that are tried
    config.probe.temperature = 0.07  # of their votes

    # jaxft.losses.resolve: a name of jaxft.losses or "module:function"; "" is the task's own. `options` are its keyword
    # arguments, whatever they are called: class_weights="balanced", gamma=2.0.
    config.loss = ConfigDict()
    config.loss.name = ""
    config.loss.options = ConfigDict()

    # What a loss may take besides: a network trained before, as `teacher`; where the run began, as `anchor`, and how much each
    # parameter matters, a file by '/' paths.
    config.teacher = ConfigDict()
    config.teacher.run = ""  # a workdir, or an adapter file
    config.anchor = ConfigDict()
    config.anchor.importance = ""

    # jaxft.optim.make_optimizer; each phase may override any of it. None: the optimizer's own.
    config.optim = ConfigDict()
    config.optim.name = "adamw"  # see jaxft.optim.methods.METHODS, or "module:function"
    config.optim.lr = config_dict.placeholder(float)  # the peak; None: the usual one, see jaxft.optim.rates
    config.optim.schedule = "cosine"  # or constant, linear, polynomial, step, onecycle, plateau (jaxft.optim.schedules)
    config.optim.schedule_options = ConfigDict()  # of polynomial, onecycle and plateau: power=2.0, pct_start=0.2, patience=3
    config.optim.warmup = "0 steps"  # linear, before the schedule
    config.optim.end_lr = 0.0  # of cosine, linear and polynomial; plateau goes no lower
    config.optim.step_every = config_dict.placeholder(str)  # of step
    config.optim.step_factor = 0.1
    config.optim.momentum = config_dict.placeholder(float)
    config.optim.nesterov = config_dict.placeholder(bool)
    config.optim.b1 = config_dict.placeholder(float)
    config.optim.b2 = config_dict.placeholder(float)
    config.optim.eps = config_dict.placeholder(float)
    config.optim.options = ConfigDict()  # further settings of the optimizer, arguments of a "module:function"
    config.optim.weight_decay = 0.0
    config.optim.decay_norms_and_biases = False
    config.optim.l2_sp = config_dict.placeholder(float)  # in its place: a pull to the pretrained values, of this strength
    config.optim.l2_sp_head = 0.01  # the weight decay of the new head beside it; None pulls a head that goes on like the rest
    config.optim.clip_norm = config_dict.placeholder(float)
    config.optim.layer_decay = config_dict.placeholder(float)  # 0.75: each layer has 0.75 of the rate of the next one
    config.optim.stage_lr = ""  # "stem:0.1, stage1:0.1": what the rate is multiplied by in a stage, or a glob over parameters
    config.optim.keep_moments = True  # from phase to phase, of what trains on

    # Options of the adapters that phases train (`train="lora+head"`): keyword arguments of jaxft.adapters.lora, ssf, ...
    config.adapter = ConfigDict()
    config.adapter.options = ConfigDict()

    # Phases run one after the other, in the order of their names. `train` and `freeze`: see jaxft.tuning.FreezeSpec.
    config.phases = ConfigDict()
    config.phases.phase1 = phase()

    config.train = ConfigDict()
    config.train.accum_steps = 1
    # Averages of what a phase trains are what evaluations and checkpoints use: exponential ones with `ema_decay`, the mean of
    # networks with `swa_start`, none without either; see jaxft.train.ema and swa. Their steps count from the phase's first.
    config.train.ema_decay = config_dict.placeholder(float)
    config.train.ema_start = "0 steps"
    config.train.ema_warmup_power = config_dict.placeholder(float)  # 0.67: the decay grows; None: it is ema_decay at once
    config.train.ema_warmup_gamma = 1.0
    config.train.ema_min_decay = 0.0
    config.train.swa_start = config_dict.placeholder(str)
    config.train.swa_every = "1 epochs"
    config.train.sam_rho = config_dict.placeholder(float)  # sharpness-aware minimisation, e.g. 0.05; see jaxft.train
    config.train.sam_adaptive = False  # ASAM: in the size of each weight, sam_rho e.g. 0.5
    config.train.log_every = "20 steps"
    config.train.eval_every = "1 epochs"
    config.train.checkpoint_every = config_dict.placeholder(str)  # besides every evaluation
    # What early stopping and the best checkpoint look at, on the validation split: loss, accuracy, balanced_accuracy, top5 (of
    # more than five classes), mae (of a regression). Without labels there is the loss alone.
    config.train.monitor = "accuracy"
    config.train.mode = "max"  # or "min", for loss and mae
    config.train.patience = config_dict.placeholder(int)  # evaluations without a gain before a phase ends early
    config.train.min_delta = 0.0
    config.train.restore_best = False  # a phase begins with the weights of the best checkpoint, not with the latest ones

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


def config_of(record: Mapping[str, Any]) -> ConfigDict:
    """The configuration of a checkpoint's record (`to_json`, read); keys of newer versions have their defaults."""
    config = default_config()
    for name, section in record.items():
        if name == "phases":
            config.phases = ConfigDict({key: {**phase().to_dict(), **given} for key, given in section.items()})
        elif isinstance(section, Mapping):
            config[name] = ConfigDict({**config[name].to_dict(), **section})
        else:
            config[name] = section
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


def gradual(
    stages: Sequence[str],
    *,
    length: str | Sequence[str] = "1 epochs",
    lr: float | Sequence[float] | None = None,
    **optim: Any,
) -> ConfigDict:
    """Gradual unfreezing (Howard & Ruder, 2018): phases that train the head, then one stage more each, from the last one down.

    Args:
      stages: in the order of the network, the head left out: `("stage3", "stage4")` gives the phases head, from:stage4 and
        from:stage3. "full" may come first.
      length: of each phase, the head's first; one for all, or one a phase.
      lr: likewise; None is the default of `config.optim.lr`.
      **optim: settings of all of them, as of `phase`.

    Returns:
      A section for `config.phases`.

    Raises:
      JaxftError: no stage, one twice, or another number of lengths or rates.
    """
    if isinstance(stages, str) or not stages or len({*stages}) != len(stages) or "head" in stages:
        raise JaxftError(f"gradual takes the names of stages, each once, the head left out, not {stages!r}")
    parts = ["head", *(stage if stage == "full" else f"from:{stage}" for stage in reversed(stages))]
    if "full" in stages[1:]:
        raise JaxftError("gradual: 'full' comes first: it is trained last")
    lengths = [length] * len(parts) if isinstance(length, str) else list(length)
    rates = list(lr) if isinstance(lr, Sequence) else [lr] * len(parts)
    for what, given in (("lengths", lengths), ("rates", rates)):
        if len(given) != len(parts):
            raise JaxftError(f"gradual has {len(given)} {what} for {len(parts)} phases: {', '.join(parts)}")
    digits = len(str(len(parts)))  # phases go by their names
    found = ConfigDict()
    for index, (part, time, rate) in enumerate(zip(parts, lengths, rates, strict=True)):
        name = f"unfreeze{index + 1:0{digits}d}_{part.removeprefix('from:')}"
        found[name] = phase(train=part, length=time, lr=rate, **optim)
    return found


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


def may_be_none(keys: Sequence[str]) -> bool:
    """Whether None is the default of the key at this path, which it can then be set back to."""
    known, path = default_config(), list(keys)
    if path[0] == "phases":
        known, path = (known.optim, path[3:]) if path[2:3] == ["optim"] else (phase(), path[2:])
    *sections, key = path
    section = find_key(sections, known)
    return key in section and section[key] is None


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
