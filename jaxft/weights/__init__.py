"""Pretrained weights: fetched, read, renamed, checked, put into a network; and written back."""

from jaxft.weights.convert import ConvertReport, convert_file
from jaxft.weights.fit import fit, prepared
from jaxft.weights.limits import UnsafeCheckpoint
from jaxft.weights.load import OWN_NAMES, Loaded, LoadReport, create_model, load_model
from jaxft.weights.projection import image_projection
from jaxft.weights.readers import read, read_with_metadata
from jaxft.weights.repository import Repository, is_repository, open_repository
from jaxft.weights.rules import CONV, DENSE, IDENTITY, Converted, Op, Rule, convert, export, flatten_chw
from jaxft.weights.safetensors_file import save_safetensors
from jaxft.weights.sources import cache_folder, fetch

__all__ = [
    "CONV",
    "DENSE",
    "IDENTITY",
    "OWN_NAMES",
    "ConvertReport",
    "Converted",
    "LoadReport",
    "Loaded",
    "Op",
    "Repository",
    "Rule",
    "UnsafeCheckpoint",
    "cache_folder",
    "convert",
    "convert_file",
    "create_model",
    "export",
    "fetch",
    "fit",
    "flatten_chw",
    "image_projection",
    "is_repository",
    "load_model",
    "open_repository",
    "prepared",
    "read",
    "read_with_metadata",
    "save_safetensors",
]
