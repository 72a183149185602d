"""Writes LoRA and DoRA of networks of transformers and timm for PEFT, has PEFT put them on their networks, and compares logits.

    python scripts/check_peft.py --torch-python PYTHON

PYTHON has torch, timm, transformers and peft. Ends with an error where a relative difference exceeds 1e-5.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

#: Network -> the library whose names and network it is.
CASES = {
    "vit_small_patch32_224": "timm",
    "vit_small_patch16_224_hf": "transformers",
    "resnet18": "timm",
    "efficientnet_lite0": "timm",
}
CLASSES, PIXELS = ("a", "b", "c"), 64

THEIRS = """
import sys, numpy as np, torch, peft
folder, library = sys.argv[1:]
if library == "timm":
    import timm
    network = timm.create_model(f"local-dir:{folder}/base", pretrained=True)
else:
    import transformers
    network = transformers.AutoModelForImageClassification.from_pretrained(f"{folder}/base")
image = torch.from_numpy(np.load(f"{folder}/image.npy")).permute(0, 3, 1, 2)
with torch.no_grad():
    found = peft.PeftModel.from_pretrained(network.eval(), f"{folder}/peft").eval()(image)
np.save(f"{folder}/theirs.npy", (found if isinstance(found, torch.Tensor) else found.logits).numpy())
"""


def write(name: str, library: str, kind: str, folder: Path) -> np.ndarray:
    """A network, its adapter for PEFT and some images; returns our logits."""
    import jax

    import jaxft
    from jaxft.adapters import with_adapter
    from jaxft.config import default_config, to_json
    from jaxft.export import export_network
    from jaxft.finetuned import FineTuned

    model, params, state = jaxft.create_model(name, len(CLASSES), size=PIXELS, seed=1)
    config = default_config()
    config.model.name, config.model.pretrained = name, str(folder / "base")
    record = {"model": {"name": name, "num_classes": len(CLASSES), "head": "linear"}, "config": json.loads(to_json(config))}
    record["preprocessing"] = dataclasses.asdict(model.preprocessing)
    tuned = FineTuned(model, params, state, CLASSES, "classify", 0, record)
    export_network(tuned, folder / "base", to=library)
    adapted = with_adapter(model, kind, rank=2, alpha=3.0, modules="**/attn,**/mlp" if name.startswith("vit") else "")
    params = adapted.add_adapters(params, jax.random.key(0))
    params = {**params, "adapters": jax.tree.map(lambda leaf: leaf * 1.1 + 0.02, params["adapters"])}
    export_network(dataclasses.replace(tuned, model=adapted, params=params), folder / "peft", to="peft")
    image = np.random.default_rng(0).normal(size=(2, PIXELS, PIXELS, 3)).astype(np.float32)
    np.save(folder / "image.npy", image)
    return np.asarray(jax.jit(lambda params: adapted.apply(params, state, image)[0]["logits"])(params))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", required=True)
    options, wrong = parser.parse_args(), 0
    for name, library in CASES.items():
        for kind in ("lora", "dora") if name.startswith("vit") else ("lora",):
            with tempfile.TemporaryDirectory() as made:
                ours = write(name, library, kind, Path(made))
                subprocess.run([options.torch_python, "-W", "ignore", "-c", THEIRS, made, library], check=True)
                theirs = np.load(Path(made) / "theirs.npy")
            differs = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            wrong += differs > 1e-5
            print(f"{name}, {kind} ({library}): {differs:.1e}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
