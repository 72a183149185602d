"""Run by a Python that has torch: what the original network makes of given weights and images. Imports nothing of jaxft.

    python torch_side.py REQUEST.json

The request's keys: `library` (torchvision, timm, transformers), `name` and `arguments` of the network there, `weights` (a
safetensors or `.pth` file, loaded with strict=True), `images` (an `.npy` file, f32 [B, H, W, C], normalised), `dtype` (of
inference), `labels`, `train` (whether a batch in train mode is run, in float64), `files` (picture files), `tag` (whose
preprocessing they get), and `out`, the `.npz` that is written:

  layer|NAME     what the module gave, in the order in which modules were called
  logits         [B, K]
  loss, grad|NAME, state|NAME   of a batch in train mode
  pixels|NUMBER  a picture as the original pipeline gives it to the network, [C, H, W]
  versions       JSON
"""

import collections
import json
import sys
from typing import Any

import numpy as np
import torch

torch.set_grad_enabled(False)


def classified(network: Any, base: str, head: str, width: int, classes: int) -> Any:
    """A network of transformers and a dense layer called `head` on what it pools; `base` is what the network is called then."""
    layer = torch.nn.Linear(width, classes)
    whole = network
    if base:
        whole = torch.nn.Module()
        whole.add_module(base, network)
    inner = network.__call__ if base else network.forward
    whole.add_module(head, layer)
    whole.forward = lambda image: layer(inner(image).pooler_output)
    return whole


def of_transformers(name: str, arguments: dict[str, Any]) -> Any:
    """The network `name`; where it is no classifier, without what only pretraining needs, and with a head."""
    import transformers

    config = transformers.AutoConfig.for_model(
        arguments["model_type"], **arguments["config"], num_labels=arguments["num_classes"]
    )
    network = getattr(transformers, name)(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.momentum > 0.5:
            module.momentum = 1 - module.momentum  # TensorFlow's, the weight of the old value, given to torch as it is
    if "Classification" in name:
        return network
    for module in network.modules():
        module._parameters.pop("mask_token", None)
    return classified(network, arguments["base"], arguments["head"], config.hidden_size, arguments["num_classes"])


def make(library: str, name: str, arguments: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    if library == "transformers":
        import transformers

        return of_transformers(name, arguments), {"transformers": transformers.__version__}
    if library == "timm":
        import timm

        return timm.create_model(name, **arguments), {"timm": timm.__version__}
    import torchvision

    return torchvision.models.get_model(name, weights=None, **arguments), {"torchvision": torchvision.__version__}


def read(path: str) -> Any:
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def tensor_of(output: Any) -> Any:
    """The tensor in what a module gave: itself, the first of a tuple, or the logits of a library's own class."""
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    return tensor_of(output[0]) if isinstance(output, tuple | list) and output else None


def watch(network: Any, found: dict[str, np.ndarray]) -> list[Any]:
    """Records what every module gives on its first call."""

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            tensor = tensor_of(output)
            if tensor is not None and name not in found:
                found[name] = tensor.numpy().copy()

        return hook

    return [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name]


def train_step(network: Any, images: Any, labels: Any) -> dict[str, Any]:
    """Loss, gradients and statistics of a batch in train mode, in float64, without dropout."""
    network = network.double().train()
    for module in network.modules():
        for rate in ("p", "drop_prob"):  # of dropout; of stochastic depth in torchvision and in timm
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    with torch.enable_grad():
        loss = torch.nn.functional.cross_entropy(tensor_of(network(images.double())), labels)
        loss.backward()
    found: dict[str, Any] = {"loss": np.float64(loss.item())}
    for name, parameter in network.named_parameters():
        found[f"grad|{name}"] = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            found[f"state|{name}"] = value.numpy()
    return found


def pipeline(library: str, name: str, tag: str) -> Any:
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name).to_dict()
        return timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=config))
    import torchvision

    weights = {
        found.name.lower().replace("imagenet1k", "imagenet"): found for found in torchvision.models.get_model_weights(name)
    }
    return weights[tag].transforms()


def main(request: dict[str, Any]) -> None:
    network, versions = make(request["library"], request["name"], request["arguments"])
    weights = collections.OrderedDict(read(request["weights"]))
    weights._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]  # MNASNet wants the version of its modules
    network.load_state_dict(weights, strict=True)
    del weights  # gigabytes
    dtype = getattr(torch, request["dtype"])
    network.to(dtype).eval()
    images = torch.from_numpy(np.load(request["images"]).transpose(0, 3, 1, 2).copy()).to(dtype)
    layers: dict[str, np.ndarray] = {}
    hooks = watch(network, layers)
    logits = tensor_of(network(images)).numpy()
    for hook in hooks:
        hook.remove()
    found: dict[str, Any] = {f"layer|{name}": value for name, value in layers.items()} | {"logits": logits}
    if request["files"]:
        from PIL import Image

        transform = pipeline(request["library"], request["name"], request["tag"])
        for number, path in enumerate(request["files"]):
            pixels = transform(Image.open(path).convert("RGB"))
            if hasattr(network, "_transform_input"):  # GoogLeNet and Inception: a part of the network there, of the input here
                network.transform_input = True
                pixels = network._transform_input(pixels[None])[0]
                network.transform_input = False
            found[f"pixels|{number}"] = pixels.numpy()
    if request["train"]:
        found |= train_step(network, images, torch.tensor(request["labels"]))
    found["versions"] = np.array(json.dumps({"torch": torch.__version__, **versions}))
    np.savez(request["out"], **found)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        main(json.load(file))
