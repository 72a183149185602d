"""Fine-tunes networks of each family for a moment, exports them with their new head for every library that has them, and has it
load them: strictly, to the same logits (relative difference, in float64), with pictures prepared by its own pipeline. What it
saves again is read bit for bit.

    python scripts/check_exports.py --torch-python PYTHON [--only "vit*"]

PYTHON has torch, torchvision, timm and transformers. Writes docs/exports.json.
"""

import argparse
import collections
import datetime
import fnmatch
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
FOUND = ROOT / "docs" / "exports.json"
#: A multiple of every patch; cut out of pictures with an even overhang, at whose odd ones transformers' processors disagree.
PIXELS, CLASSES = 112, ("circle", "cross", "dots")


def draw(root: Path) -> Path:
    """Class folders of noisy pictures, not square, whose mean colour tells the class."""
    from PIL import Image

    rng = np.random.default_rng(7)
    for index, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 120, (90, 120 + number, 3), dtype=np.uint8)
            pixels[..., index] += 100
            Image.fromarray(pixels).resize((360, 270)).save(root / name / f"{number}.png")
    return root


def chosen() -> list[str]:
    """Of each family the smallest network that torchvision has, and timm; and the smallest of each class of transformers."""
    from jaxft.models import architecture_of, build, list_models, size_of
    from jaxft.verify.verify import originals

    found: dict[tuple[str, str], str] = {}
    for name in sorted(list_models(), key=lambda name: size_of(name).parameters):
        for library, theirs in originals(build(name)).items():
            if library != "transformers" or "Classification" in theirs:
                kind = theirs if library == "transformers" else library
                found.setdefault((architecture_of(name).family, kind), name)
    return sorted(set(found.values()))


def fine_tune(name: str, pictures: Path, folder: Path) -> None:
    """Of seeded weights, on which every layer shows in the logits; networks with windows in their own size."""
    import jaxft
    from jaxft.models import architecture_of
    from jaxft.verify.verify import originals, seeded_model, seeded_variables
    from jaxft.weights import export, save_safetensors
    from jaxft.weights.names import rules

    model = seeded_model(name, size=None if architecture_of(name).window_pixels else PIXELS)
    library = next(iter(originals(model)))
    start = export(seeded_variables(model, library, 0), rules(model, library))
    save_safetensors(folder / "start.safetensors", start)
    jaxft.finetune(
        pictures, workdir=folder / "run", model=name, pretrained=str(folder / "start.safetensors"), train_part="head", epochs=1,
        lr=1e-3, batch_size=4, size=model.preprocessing.size, log={"tensorboard": False},
    )  # fmt: skip


def check(name: str, folder: Path, pictures: Path, python: str) -> dict[str, Any]:
    """Of every library what `torch_side` found, with our own logits and pixels held against it."""
    import jaxft
    from jaxft import tree
    from jaxft.data import decode
    from jaxft.decoding.transforms import eval_transform
    from jaxft.preprocessing import normalize
    from jaxft.verify import run_layers
    from jaxft.verify.verify import in_float64, originals
    from jaxft.weights import load_model

    tuned = jaxft.load_run(folder / "run")
    files = sorted(pictures.rglob("0.png"))
    pixels = np.stack([eval_transform(decode(file), tuned.model.preprocessing) for file in files])
    images = np.asarray(normalize(pixels, tuned.model.preprocessing))
    np.save(folder / "images.npy", images.transpose(0, 3, 1, 2))
    variables = {"params": tuned.params, **tuned.model_state}
    logits = run_layers(in_float64(tuned.model), variables, images)[0]["logits"]
    ours = tree.flatten(variables)
    found: dict[str, Any] = {}
    for library in originals(tuned.model):
        out = folder / (f"{library}.safetensors" if library == "torchvision" else library)
        try:
            exported = jaxft.export_run(folder / "run", out, to=library)
        except jaxft.JaxftError as error:  # towers have no classifier in transformers
            found[library] = {"refused": str(error)}
            continue
        request = {"library": library, "out": str(out), "files": [str(file) for file in files], "loads": exported.loads}
        (folder / "request.json").write_text(json.dumps(request))
        done = subprocess.run(
            [python, "-P", __file__, "--torch-side", str(folder / "request.json")], capture_output=True, text=True, check=False
        )
        if done.returncode:
            found[library] = {"failed": done.stderr.strip().splitlines()[-1][:300]}
            continue
        theirs = np.load(folder / "request.npz")
        again = load_model(name, None, str(folder / "again.safetensors"), size=tuned.model.preprocessing.size)
        back = tree.flatten({"params": again.params, **again.model_state})
        found[library] = {
            "logits": float(np.abs(theirs["logits"] - logits).max() / np.abs(logits).max()),
            "pixels": float(np.abs(theirs["pixels"] - images.transpose(0, 3, 1, 2)).max()) if "pixels" in theirs else None,
            "bit_equal": all(np.array_equal(ours[path], back[path]) for path in ours) and len(ours) == len(back),
        }
    return found


def torch_side(request: dict[str, Any]) -> None:
    """In the Python that has torch: loads what was exported by the lines that `jaxft export` prints."""
    import safetensors.torch
    import timm
    import torch
    import torchvision
    import transformers
    from PIL import Image

    torch.set_grad_enabled(False)
    modules = (collections, safetensors, timm, torchvision, transformers)
    scope = {module.__name__: module for module in modules}
    lines = [line.strip() for line in request["loads"].strip().splitlines()]
    if len(lines) == 1:
        network = eval(lines[0], scope)  # the line as printed
    else:
        exec("\n".join(lines), scope)
        network = scope["network"]
    network.eval()
    images = [Image.open(file).convert("RGB") for file in request["files"]]
    found = {}
    if request["library"] == "timm":
        transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
        found["pixels"] = torch.stack([transform(image) for image in images])
    elif request["library"] == "transformers":
        *_, loading = transformers.AutoModelForImageClassification.from_pretrained(request["out"], output_loading_info=True)
        assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
        processor = transformers.AutoImageProcessor.from_pretrained(request["out"], backend="pil")
        found["pixels"] = processor(images, return_tensors="pt")["pixel_values"]
    given = np.load(Path(request["out"]).parent / "images.npy")
    safetensors.torch.save_file(
        {name: value.clone().contiguous() for name, value in network.state_dict().items()},
        Path(request["out"]).parent / "again.safetensors",
    )
    logits = network.double()(torch.from_numpy(given).double())
    found["logits"] = getattr(logits, "logits", logits)
    np.savez(Path(request["out"]).parent / "request.npz", **{key: value.numpy() for key, value in found.items()})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch-python")
    parser.add_argument("--torch-side")
    parser.add_argument("--only", default="*", help="glob over networks")
    options = parser.parse_args()
    if options.torch_side:
        torch_side(json.loads(Path(options.torch_side).read_text()))
        return
    found = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    for name in fnmatch.filter(chosen(), options.only):
        with tempfile.TemporaryDirectory() as folder:
            pictures = draw(Path(folder) / "pictures")
            fine_tune(name, pictures, Path(folder))
            found[name] = {
                "date": datetime.date.today().isoformat(),
                **check(name, Path(folder), pictures, options.torch_python),
            }
        print(name, json.dumps(found[name]), flush=True)
        FOUND.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
