"""What a run changed of a pretrained network, in one file: adapters, head, whatever else was trained, BatchNorm statistics.

The rest is told by where it came from and by a hash: to load the file is to load those weights, compare the hash and put the
changes on top.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxft import tree
from jaxft.adapters import Lora, adapted, with_adapter
from jaxft.config import config_of, default_config, to_json
from jaxft.errors import JaxftError
from jaxft.files import write_whole
from jaxft.finetuned import FineTuned
from jaxft.models import build, is_tag
from jaxft.models import pretrained as pretrained_record
from jaxft.network import network_and_weights, run_of
from jaxft.preprocessing import Preprocessing
from jaxft.tuning import ADAPTERS
from jaxft.typing import Params
from jaxft.weights import is_repository, load_model, names, open_repository, save_safetensors
from jaxft.weights.peft import CONFIG, WEIGHTS, from_peft, is_peft, peft_files, read_peft, to_peft
from jaxft.weights.readers import read_with_metadata
from jaxft.weights.rules import export, places

_FORMAT = "jaxft adapter 1"


def is_adapter(path: str | Path) -> bool:
    """Whether a path is a file of `save_adapter`, by its ending, or a folder of PEFT's."""
    return str(path).endswith(".safetensors") or (not str(path).startswith("gs://") and is_peft(Path(path)))


def changes(tuned: FineTuned) -> tuple[dict[str, np.ndarray], str]:
    """(the leaves that are not those of the pretrained weights, by '/' path with the collection first; the hash of the rest).

    The head and the BatchNorm statistics are always among them; where the network began with random weights, all are: another
    machine may draw others.
    """
    base = _base(tuned.record)
    flat, original = tree.flatten(tuned.params), tree.flatten(base)
    same = {
        path
        for path, leaf in original.items()
        if tuned.model.stage_of(path) != "head" and np.array_equal(np.asarray(flat[path]), np.asarray(leaf))
    }
    changed = {f"params/{path}": np.asarray(leaf) for path, leaf in flat.items() if path not in same}
    statistics = {path: np.asarray(leaf) for path, leaf in tree.flatten(dict(tuned.model_state)).items()}
    return changed | statistics, tree.digest({path: original[path] for path in same})


def _base(record: Mapping[str, Any]) -> Params:
    """The pretrained parameters, as a run keeps them; {} where it began with random ones, or with those of another run, which
    others do not have."""
    config = config_of(record["config"])
    section = {
        key: value for key, value in config.model.items() if key not in ("name", "outputs", "pretrained", "size", "zero_shot")
    }
    name, pretrained = network_and_weights(config)
    if pretrained is None or run_of(pretrained):
        return {}
    loaded = load_model(
        name,
        record["model"]["num_classes"],
        pretrained,
        **section,
        size=record["preprocessing"]["size"],
        seed=config.seed,
    )
    if config.parallel.frozen_dtype == "float32":
        return loaded.params
    return tree.map_with_path(
        lambda _, leaf: leaf.astype(jnp.bfloat16).astype(leaf.dtype) if leaf.ndim > 1 else leaf, loaded.params
    )


def save_adapter(tuned: FineTuned, path: Path) -> int:
    """Writes the file; returns the number of its tensors.

    Raises:
      JaxftError: the pretrained weights cannot be had, which say what changed; or the file cannot be written.
    """
    changed, digest = changes(tuned)
    metadata = {
        "format": _FORMAT,
        "base_sha256": digest,
        "base": network_and_weights(config_of(tuned.record["config"]))[1] or "random",
        "model": tuned.model.name,
        "class_names": json.dumps(list(tuned.class_names)),
        "step": str(tuned.step),
        "record": json.dumps(tuned.record),
    }
    save_safetensors(path, changed, metadata)
    return len(changed)


def load_adapter(path: str | Path) -> FineTuned:
    """The network of a file of `save_adapter`, or of a folder of PEFT's, on its pretrained weights.

    Raises:
      JaxftError: another kind of file, a damaged one, or pretrained weights that are not those it was made for.
    """
    path = Path(path)
    if path.is_dir():
        return _load_peft(path)
    tensors, metadata = read_with_metadata(path)
    if metadata.get("format") != _FORMAT:
        raise JaxftError(
            f"{path} is no adapter of `jaxft export --to=adapter`: weights are given by --config.model.pretrained={path}"
        )
    try:
        record, step = json.loads(metadata["record"]), int(metadata["step"])
        preprocessing = Preprocessing.from_json(record["preprocessing"])
        model = dataclasses.replace(build(**record["model"], size=preprocessing.size), preprocessing=preprocessing)
        if adapter := record.get("adapter"):
            model = with_adapter(model, adapter["name"], **adapter["options"])
        base = tree.flatten(_base(record))
        class_names, task = tuple(record["class_names"]), record["task"]
    except (KeyError, TypeError, ValueError) as error:
        raise JaxftError(f"{path}: its record cannot be read ({type(error).__name__}: {error})") from error
    rest = {name: leaf for name, leaf in base.items() if f"params/{name}" not in tensors}
    if tree.digest(rest) != metadata["base_sha256"]:
        raise JaxftError(
            f"{path} was made for other weights: those of '{metadata['base']}' have another hash now than when it was written"
        )
    found = {name: np.asarray(tensor) for name, tensor in tensors.items()} | {
        f"params/{name}": leaf for name, leaf in rest.items()
    }
    params, model_state = model.shapes
    wanted = {"params": params, **model_state}
    if differs := tree.diff(wanted, tree.unflatten(found)):
        raise JaxftError(f"{path} does not fit its own network: {differs}")
    variables = tree.unflatten({name: jnp.asarray(found[name]) for name in tree.flatten(wanted)})
    state = {key: value for key, value in variables.items() if key != "params"}
    return FineTuned(model, variables["params"], state, class_names, task, step, record)


def _load_peft(folder: Path) -> FineTuned:
    """The base network is the one PEFT names: a repository of the hub, or a folder."""
    found = read_peft(folder)
    source = found.base if "/" in found.base and Path(found.base).is_dir() else f"hf:{found.base}"
    repository = open_repository(source)
    model = build(repository.network)
    table = names.rules(model, repository.convention)
    # Which head there is, only the adapter says.
    heads = {place.path: name for name, place in places(found.others, table).items() if place.path.endswith("/bias")}
    classes = next((found.others[name].size for name in heads.values()), None)
    loaded = load_model(source, classes, True)
    model, params = loaded.model, tree.flatten(loaded.params)
    where = places(found.others, table)
    for name, tensor in found.others.items():
        place = where.get(name)
        leaf = None if place is None else place.path.removeprefix("params/")
        if place is None or leaf not in params or len(place.rule.sources) > 1:
            raise JaxftError(f"{folder} has '{name}', which is no part of {model.name}")
        params[leaf] = np.asarray(place.rule.op.forward(tensor), np.float32)
    adapter, adapters = from_peft(found, table, loaded.params)
    model, class_names = adapted(model, adapter), repository.class_names
    if len(class_names) != model.num_classes:
        class_names = tuple(str(number) for number in range(model.num_classes))
    config = default_config()
    config.model.name, config.model.pretrained = repository.network, source
    built = ("head", "in_channels", "dropout", "drop_path", "dtype")
    record = {
        "model": {"name": model.name, "num_classes": model.num_classes, **{key: config.model[key] for key in built}},
        "adapter": {"name": adapter.name, "options": {"rank": dict(adapter.ranks), "alpha": dict(adapter.alphas)}},
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "class_names": list(class_names),
        "task": "classify",
        "config": json.loads(to_json(config)),
    }
    params = jax.tree.map(jnp.asarray, {**tree.unflatten(params), ADAPTERS: dict(adapters)})
    return FineTuned(model, params, loaded.model_state, class_names, "classify", 0, record)


def save_peft(tuned: FineTuned, folder: Path) -> tuple[int, str]:
    """Writes LoRA or DoRA, the head and what else was trained as PEFT reads them, in the names of the repository of the
    pretrained weights, or timm's.

    Returns:
      (number of tensors, the network as PEFT is to call it; "" where its weights are of no repository).

    Raises:
      JaxftError: another adapter, a head that is no single layer, or trained BatchNorms.
    """
    model, adapter = tuned.model, tuned.model.adapter
    if not isinstance(adapter, Lora):
        raise JaxftError(f"PEFT is given LoRA and DoRA, and this network has {adapter.name if adapter else 'no adapter'}")
    if tuned.record["model"]["head"] != "linear":
        raise JaxftError(f"the head is an '{tuned.record['model']['head']}', which PEFT's network does not have")
    if grouped := [module for module in adapter.ranks if module in model.called and model.called[module].groups > 1]:
        raise JaxftError(f"'{grouped[0]}' is a grouped convolution, which PEFT does not adapt: leave it out with modules=")
    pretrained = network_and_weights(config_of(tuned.record["config"]))[1]
    if pretrained is None or run_of(pretrained):
        began = "random weights" if pretrained is None else "the weights of another run"
        raise JaxftError(f"the network began with {began}, on which PEFT cannot put anything: use --to=adapter, or timm")
    source, convention = _origin(tuned)
    table = names.rules(model, convention)
    changed = {path: leaf for path, leaf in changes(tuned)[0].items() if path.startswith("params/")}
    own = {path: leaf for path, leaf in changed.items() if not path.startswith(f"params/{ADAPTERS}/")}
    statistics = {path.rpartition("/")[0] for path in tree.paths(tuned.model_state.get("batch_stats", {}))}
    if trained := [path for path in own if path.removeprefix("params/").rpartition("/")[0] in statistics]:
        raise JaxftError(
            f"'{trained[0]}' was trained: the statistics of BatchNorms have no place in PEFT's file; use --to=adapter"
        )
    found = to_peft(adapter, tuned.params[ADAPTERS], table, source)
    config, tensors = peft_files(dataclasses.replace(found, others=export(tree.unflatten(own), table)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
        write_whole(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    except OSError as error:
        raise JaxftError(f"cannot write {folder}: {error.strerror}") from error
    return len(tensors), source


def _origin(tuned: FineTuned) -> tuple[str, str]:
    """(OWNER/REPO or the folder of the pretrained weights, "" where they are of neither; whose names PEFT is to find).

    The names are the repository's, else timm's where it has the network.
    """
    name, pretrained = network_and_weights(config_of(tuned.record["config"]))
    if pretrained and is_repository(pretrained):
        return pretrained.removeprefix("hf:").partition("@")[0], open_repository(pretrained).convention
    record = pretrained_record(name, pretrained) if pretrained and is_tag(pretrained) else None
    source = record.source.removeprefix("hf:") if record and record.source.startswith("hf:") else ""
    known = names.conventions(tuned.model)
    return "/".join(source.split("/")[:2]), next(library for library in ("timm", "torchvision", *known) if library in known)
