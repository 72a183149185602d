"""Writes jaxft/weights/transformers.json: what Hugging Face's transformers takes for what a repository's files leave out.

Files of configs and of image processors leave out what they have in common with their class. Of each kind of network that jaxft
has this reads the defaults of the fields that tell its members apart, those of its image processor, and the repository that the
class is documented with.

Needs transformers, torch, torchvision and jaxft, in an environment of its own:
    python scripts/read_transformers.py
"""

import inspect
import json
import re
from pathlib import Path

import transformers
from transformers import AutoConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from jaxft.models import build, list_models
from jaxft.weights.names import transformers_config

PATH = Path(__file__).parent.parent / "jaxft" / "weights" / "transformers.json"
PROCESSING = (
    *("size", "crop_size", "do_center_crop", "crop_pct", "resample", "do_rescale", "rescale_factor", "rescale_offset"),
    *("do_normalize", "image_mean", "image_std", "include_top"),
)


def main() -> None:
    kinds: dict[str, set[str]] = {}
    for name in list_models():
        if found := transformers_config(build(name)):
            kinds.setdefault(found.model_type, set()).update(found.fields, ["image_size"])
    known, processors = {}, {}
    for kind, fields in sorted(kinds.items()):
        config = AutoConfig.for_model(kind)
        processor = IMAGE_PROCESSOR_MAPPING_NAMES[kind.removesuffix("_vision_model").removesuffix("_with_registers")]
        made = getattr(transformers, processor["pil" if "pil" in processor else "torchvision"])
        given = made().to_dict()
        processors[processor["torchvision"]] = {
            "square": made.default_to_square,
            **{key: given[key] for key in PROCESSING if given.get(key) is not None},
        }
        known[kind] = {
            "config": {key: value for key, value in sorted(config.to_dict().items()) if key in fields},
            "processor": processor["torchvision"],
            "documented": re.search(r'checkpoint="([^"]+)"', inspect.getsource(type(config))).group(1),
        }
    found = {"version": transformers.__version__, "kinds": known, "processors": dict(sorted(processors.items()))}
    PATH.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
