"""Repositories as Hugging Face's hub has them, and folders like them: a `config.json` that says which network, and its weights.

The config is timm's or that of Hugging Face's transformers. What the latter's files leave out, because it is the default of
their class, stands in `transformers.json`, which scripts/read_transformers.py writes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxft.errors import JaxftError
from jaxft.models import Pretrained, build, list_models
from jaxft.preprocessing import INTERPOLATIONS, Preprocessing
from jaxft.weights import names
from jaxft.weights.names import TransformersConfig
from jaxft.weights.sources import MissingFileError, fetch

_CONFIG = "config.json"
#: The first that is there is read.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
#: Towers of networks for pictures and texts: the kind of the whole -> that of what sees.
_TOWERS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
#: Below this size ConvNeXt's image processor crops; from it on it resizes both sides.
_CROPPED_BELOW = 384
#: Pillow's numbers of what `Preprocessing.interpolation` names.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclasses.dataclass(frozen=True)
class Repository:
    """What a repository says of itself.

    Attributes:
      source: of the repository.
      network: its name in the registry.
      convention: whose names the weights have.
      preprocessing: what their images must be like.
      class_names: of the classifier; () where the config has none.
    """

    source: str
    network: str
    convention: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]

    def record(self, weights: str = "") -> Pretrained:
        """As the record of pretrained weights; `weights` is their file."""
        return Pretrained("", weights, "", self.convention, 0, self.preprocessing, "", None, "")

    def find_weights(self) -> str:
        """The source of its weight file, which is downloaded.

        Raises:
          JaxftError: it has none that jaxft reads.
        """
        for file in _WEIGHTS:
            try:
                fetch(_within(self.source, file))
            except MissingFileError:
                continue
            return _within(self.source, file)
        raise JaxftError(f"{self.source} has none of {', '.join(_WEIGHTS)}; weights in several files are not read")


def is_repository(text: str) -> bool:
    """Whether a source is `hf:OWNER/REPO[@REVISION]`, or the path of a folder with a `config.json`, `./net`."""
    if text.startswith("hf:"):
        return text.partition("@")[0].count("/") == 1
    return "/" in text and (Path(text).expanduser() / _CONFIG).is_file()


def open_repository(source: str) -> Repository:
    """Reads a repository's configs, not its weights.

    Raises:
      JaxftError: no such repository, or a network that jaxft does not have.
    """
    try:
        config = _read_json(source, _CONFIG)
        if "architecture" in config:
            network, preprocessing = _of_timm(config)
            convention = "timm"
        elif "model_type" in config:
            network, preprocessing = _of_transformers(config, source)
            convention = "transformers"
        else:
            raise JaxftError("its config.json is neither timm's ('architecture') nor transformers' ('model_type')")
        class_names = _class_names(config)
    except JaxftError as error:
        raise type(error)(f"{source}: {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise JaxftError(f"{source}: its configs cannot be read ({type(error).__name__}: {str(error)[:100]})") from error
    return Repository(source, network, convention, preprocessing, class_names)


def _within(source: str, file: str) -> str:
    if not source.startswith("hf:"):
        return str(Path(source).expanduser() / file)
    repository, mark, revision = source.partition("@")
    return f"{repository}/{file}{mark}{revision}"


def _read_json(source: str, file: str) -> dict[str, Any]:
    path = fetch(_within(source, file))
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise JaxftError(f"its {file} cannot be read ({str(error)[:100]})") from error
    if not isinstance(found, dict):
        raise JaxftError(f"its {file} is no object")
    return found


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Of transformers' `id2label` or timm's `label_names`."""
    if config.get("id2label"):
        known = {int(number): str(name) for number, name in config["id2label"].items()}
        return tuple(known[number] for number in range(len(known)))
    return tuple(str(name) for name in config.get("label_names") or ())


def _of_timm(config: Mapping[str, Any]) -> tuple[str, Preprocessing]:
    theirs, arguments = config["architecture"], dict(config.get("model_args") or {})
    network = next((name for name in list_models() if names.original_name(name, "timm") == theirs), None)
    if network is None:
        raise JaxftError(f"it is timm's {theirs}, which jaxft does not have (`jaxft models` lists all)")
    arguments.pop("img_size", None)  # position embeddings say it
    arguments.pop("in_chans", None)
    if arguments or config.get("pretrained_cfg", {}).get("custom_load"):
        changed = ", ".join(sorted(arguments)) or "custom_load"
        raise JaxftError(f"it is timm's {theirs} made otherwise ({changed}), which jaxft does not read")
    return network, timm_preprocessing(config.get("pretrained_cfg") or config)


def timm_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """Of one of timm's `pretrained_cfg`, evaluation's.

    Raises:
      JaxftError: a way of cropping that jaxft does not have.
    """
    size, crop = config["input_size"][1], config.get("crop_mode") or "center"
    if crop not in ("center", "squash"):
        raise JaxftError(f"its images are cropped by '{crop}', which jaxft does not do")
    return Preprocessing(
        size=size,
        resize=math.floor(size / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        squash=crop == "squash",
    )


def timm_config(network: str, preprocessing: Preprocessing, num_classes: int) -> dict[str, Any]:
    """The inverse: what timm's `create_model("local-dir:FOLDER")` and `hf-hub:` read.

    Raises:
      JaxftError: timm does not have the network.
    """
    theirs = names.original_name(network, "timm")
    if theirs is None:
        raise JaxftError(f"timm does not have {network}")
    size, channels = preprocessing.size, len(preprocessing.mean)
    model = build(network, size=size, in_channels=channels)
    arguments = names.original_arguments(model, "timm")
    cfg = {
        "input_size": [channels, size, size],
        # A little more than the quotient, so that timm's rounding down gives the same number of pixels.
        "crop_pct": size / (preprocessing.resize + 0.25) if preprocessing.resize != size else 1.0,
        "crop_mode": "squash" if preprocessing.squash else "center",
        "interpolation": preprocessing.interpolation,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "num_classes": num_classes,
        "custom_load": False,
    }
    more = {"in_chans": channels} if channels != 3 else {}
    return {"architecture": theirs, "num_classes": num_classes, "model_args": {**arguments, **more}, "pretrained_cfg": cfg}


@functools.cache
def _known() -> dict[str, Any]:
    return json.loads((importlib.resources.files("jaxft.weights") / "transformers.json").read_text())


@functools.cache
def _described(kind: str) -> list[tuple[str, TransformersConfig]]:
    """The networks of one of transformers' kinds."""
    made = [(name, names.transformers_config(build(name))) for name in list_models()]
    return [(name, found) for name, found in made if found is not None and found.model_type == kind]


def _of_transformers(config: Mapping[str, Any], source: str) -> tuple[str, Preprocessing]:
    kind = config["model_type"]
    architecture = next(iter(config.get("architectures") or ()), "")
    if kind in _TOWERS:
        kind, config = _TOWERS[kind], config.get("vision_config") or {}
    if kind not in _known()["kinds"]:
        raise JaxftError(f"it is transformers' '{kind}', which jaxft does not have (`jaxft models` lists all)")
    given = {**_known()["kinds"][kind]["config"], **{key: value for key, value in config.items() if value is not None}}
    fitting = [(name, own) for name, own in _described(kind) if all(given[key] == value for key, value in own.fields.items())]
    # A classifier must be the same; a network without one, or for pretraining, is a network of its kind.
    fitting = [found for found in fitting if architecture == found[1].architecture or "Classification" not in architecture]
    if not fitting:
        asked = next((own.fields for _, own in _described(kind)), {})
        told = ", ".join(f"{key} {given[key]}" for key in asked)
        raise JaxftError(f"jaxft has no '{kind}' like it ({architecture or 'no architecture'}; {told})")

    def distance(found: tuple[str, TransformersConfig]) -> tuple[bool, bool]:
        return found[1].architecture != architecture, found[1].others["image_size"] != given.get("image_size")

    return min(fitting, key=distance)[0], _transformers_preprocessing(kind, source, given.get("image_size"))


def _transformers_preprocessing(kind: str, source: str, size: int | None) -> Preprocessing:
    """Of a repository's `preprocessor_config.json`, else the class's own for images of the network's size.

    Raises:
      JaxftError: geometry or numbers that `Preprocessing` cannot say.
    """
    try:
        own = _read_json(source, "preprocessor_config.json")
    except MissingFileError:
        own = {}
    known = _known()["processors"]
    # Former names of the classes, and those of their variants.
    named = str(own.get("image_processor_type") or own.get("feature_extractor_type") or "")
    named = named.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    defaults = known.get(named, known[_known()["kinds"][kind]["processor"]])
    given = {**defaults, **{key: value for key, value in own.items() if value is not None}}
    interpolation = _RESAMPLING.get(given["resample"], "")
    if interpolation not in INTERPOLATIONS:
        raise JaxftError(f"its images are resized by Pillow's number {given['resample']}, which jaxft does not do")
    side, resize, squash = _geometry(given)
    mean, std = _normalisation(given)
    found = Preprocessing(side, resize, interpolation, mean, std, squash)
    return found if own or not size else found.with_size(size)


def _geometry(given: Mapping[str, Any]) -> tuple[int, int, bool]:
    """(size, resize, squash) of an image processor's fields."""
    resize, squash = _side(given["size"], given["square"])
    if "crop_pct" in given:  # ConvNeXt's
        if resize >= _CROPPED_BELOW:
            return resize, resize, True
        return resize, int(resize / given["crop_pct"]), False
    if given.get("do_center_crop"):
        return _side(given["crop_size"], True)[0], resize, squash
    if not squash:
        raise JaxftError("its images keep their shape, which jaxft does not do: every one must be a square")
    return resize, resize, True


def _side(given: Any, square: bool) -> tuple[int, bool]:
    """(pixels, whether of both sides) of `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`."""
    if isinstance(given, int):
        return given, square
    if "shortest_edge" in given:
        return int(given["shortest_edge"]), False
    if given["height"] != given["width"]:
        raise JaxftError(f"its images are {given['height']} x {given['width']} pixels, not squares")
    return int(given["height"]), True


def _normalisation(given: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation for pixels in 0..1."""
    unit = 255 * given["rescale_factor"] if given["do_rescale"] else 255.0
    shift = 1.0 if given.get("rescale_offset") else 0.0
    mean, std = (given["image_mean"], given["image_std"]) if given["do_normalize"] else ([0.0] * 3, [1.0] * 3)
    if given.get("include_top"):  # EfficientNet's: divided by the deviation once more, as Keras does
        std = [value * value for value in std]
    return tuple((value + shift) / unit for value in mean), tuple(value / unit for value in std)


def transformers_files(
    network: str, preprocessing: Preprocessing, num_classes: int, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The inverse: file -> content, as `AutoModelForImageClassification.from_pretrained(FOLDER)` reads them.

    Raises:
      JaxftError: transformers does not have the network with a classifier.
    """
    channels = len(preprocessing.mean)
    found = names.transformers_config(build(network, size=preprocessing.size, in_channels=channels))
    if found is None or "Classification" not in found.architecture:
        raise JaxftError(f"transformers has no classifier like {network}: write it for timm, or as a .safetensors file")
    labels = list(class_names) or [f"LABEL_{number}" for number in range(num_classes)]
    config = {
        "architectures": [found.architecture],
        "model_type": found.model_type,
        **found.fields,
        **found.others,
        "num_channels": channels,
        "id2label": {str(number): name for number, name in enumerate(labels)},
        "label2id": {name: number for number, name in enumerate(labels)},
    }
    size, resize = preprocessing.size, preprocessing.resize
    processor = {
        # A class that can say all that `Preprocessing` does.
        "image_processor_type": "DeiTImageProcessor" if preprocessing.squash else "BitImageProcessor",
        "do_resize": True,
        "size": {"height": resize, "width": resize} if preprocessing.squash else {"shortest_edge": resize},
        "resample": next(number for number, name in _RESAMPLING.items() if name == preprocessing.interpolation),
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    return {_CONFIG: config, "preprocessor_config.json": processor}
