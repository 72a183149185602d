"""Writes tests/models/fixtures/zoo: what the networks of tests/models/originals compute in the libraries they come from.

A tiny network with the seeded weights of tests/models/seeded.py gives its state dict's names and shapes, in float32 its logits
and the map after each stage, and in float64 the loss, gradients and statistics of one batch in train mode. Of every network in
full size, made without memory, the number of parameters and a hash of all names and shapes are kept in full.json.

Needs torch, torchvision, timm and transformers, and jaxft, in an environment of its own:
    python scripts/make_zoo_fixtures.py [--only "resnet*"]
"""

import argparse
import fnmatch
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]
import originals  # noqa: E402
import seeded  # noqa: E402

from jaxft.models import build, list_models  # noqa: E402
from jaxft.verify.torch_side import of_transformers  # noqa: E402
from jaxft.verify.verify import arguments_of  # noqa: E402
from jaxft.weights.names import original_arguments, original_name, transformers_config  # noqa: E402

OUT = ROOT / "tests" / "models" / "fixtures" / "zoo"
LIBRARIES = SimpleNamespace(
    torch=torch, **{name: importlib.import_module(name) for name in ("torchvision", "timm", "transformers")}
)


def shapes_of(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def load(network, seed=1):
    weights = seeded.state_dict(seed, shapes_of(network))
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return network


def nchw(images, dtype):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(dtype)


def logits_of(case, output):
    if case.logits is not None:
        return case.logits(output)
    return output if isinstance(output, torch.Tensor) else output.logits


def watch(network, case, found):
    """Records the map after each stage, NHWC."""
    for stage, name in case.stages.items():

        def keep(module, inputs, output, stage=stage):
            value = output if isinstance(output, torch.Tensor) else output[0]
            value = value.permute(0, 2, 3, 1) if value.ndim == 4 and not case.channels_last else value
            found[stage] = value.detach().numpy().copy()

        network.get_submodule(name).register_forward_hook(keep)


def record(case):
    torch.manual_seed(0)
    network, maps = load(case.theirs(LIBRARIES)).eval(), {}
    shapes = shapes_of(network)
    watch(network, case, maps)
    images = seeded.images(1, case.batch, case.size)
    with torch.no_grad():
        logits = logits_of(case, network(nchw(images, torch.float32))).numpy()
    maps = {stage: maps[stage] for stage in case.stages}
    network = load(network.double()).train()
    labels = torch.from_numpy(seeded.labels(1, case.batch, originals.CLASSES)).long()
    with torch.enable_grad():  # torch_side has it off
        output = network(nchw(images, torch.float64))
        loss = torch.nn.functional.cross_entropy(logits_of(case, output), labels)
        for find in case.aux.values():
            loss = loss + 0.3 * torch.nn.functional.cross_entropy(find(output), labels)
        loss.backward()
    # A parameter that has no part in the logits has no gradient.
    grads = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in network.named_parameters()}
    statistics = {name: value for name, value in network.state_dict().items() if name.endswith(("running_mean", "running_var"))}
    found = {
        "shapes": json.dumps({name: list(shape) for name, shape in shapes.items()}),
        "logits": logits,
        "loss": loss.item(),
        "maps": originals.digest(maps),
        "map_shapes": json.dumps({stage: list(value.shape) for stage, value in maps.items()}),
        "grads": originals.digest(grads),
        "grad_names": json.dumps(list(grads)),
        "statistics": originals.digest(statistics),
    }
    np.savez_compressed(OUT / f"{case.name}.npz", **found)
    print(f"{case.name}: {len(shapes)} tensors, logits within {np.abs(logits).max():.3g}, loss {loss.item():.4f}", flush=True)


def originals_of(name):
    """Library -> the network in full size, made without memory, as each that has it makes it."""
    if (theirs := original_name(name, "torchvision")) is not None:
        arguments = original_arguments(build(name), "torchvision")
        with torch.device("cpu" if theirs.startswith("regnet") else "meta"):  # a RegNet's widths are computed in torch
            yield "torchvision", LIBRARIES.torchvision.models.get_model(theirs, **arguments)
    with torch.device("meta"):
        if (theirs := original_name(name, "timm")) is not None:
            yield "timm", LIBRARIES.timm.create_model(theirs, num_classes=1000)
        if (theirs := transformers_config(build(name))) is not None:
            yield "transformers", of_transformers(theirs.architecture, arguments_of(build(name), "transformers"))


def full(pattern):
    """Counts and names of the networks in full size."""
    path = OUT / "full.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in list_models(pattern):
        kept = {library: entry for library, entry in found.get(name, {}).items() if library.startswith("keras")}
        found[name] = {}
        for library, network in originals_of(name):
            # DINOv2's classifier has a token that only pretraining uses.
            counted = [value for key, value in network.named_parameters() if not key.endswith("mask_token")]
            count = sum(value.numel() for value in counted)
            found[name][library] = {"parameters": count, "names": originals.names_hash(shapes_of(network))}
        found[name] |= kept
        print(name, {library: entry["parameters"] for library, entry in found[name].items()}, flush=True)
    path.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="*", help="glob over names of cases and networks")
    parser.add_argument("--tiny", action="store_true", help="no full.json")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name, case in originals.cases().items():
        if fnmatch.fnmatchcase(name, options.only) and case.convention != "keras":
            record(case)
    if not options.tiny:
        full(options.only)


if __name__ == "__main__":
    print(", ".join(f"{name} {module.__version__}" for name, module in vars(LIBRARIES).items()))
    main()
