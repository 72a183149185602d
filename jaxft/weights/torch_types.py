"""What torch checkpoints are made of, in NumPy's terms: dtypes, storages, and tensors as strided views of them."""

from __future__ import annotations

import ml_dtypes
import numpy as np

_DTYPES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "?", "complex64": "c8", "complex128": "c16",
}  # fmt: skip
DTYPES: dict[str, np.dtype] = {f"torch.{name}": np.dtype(code) for name, code in _DTYPES.items()}
for _name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"):
    DTYPES[f"torch.{_name}"] = np.dtype(getattr(ml_dtypes, _name))

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}  # fmt: skip
STORAGES = {f"torch.{name}Storage": DTYPES[f"torch.{dtype}"] for name, dtype in _STORAGES.items()}
STORAGES["torch.storage.UntypedStorage"] = np.dtype("u1")
STORAGES |= {name: dtype for name, dtype in DTYPES.items() if "float8" in name}


class Storage:
    """A tensor's memory: `numel` elements of `dtype`. `data` u1 [numel * itemsize]; None until it is read."""

    __slots__ = ("data", "dtype", "key", "numel")

    def __init__(self, key: str, dtype: np.dtype, numel: int, data: np.ndarray | None = None):
        self.key, self.dtype, self.numel, self.data = key, dtype, numel, data


class View:
    """A tensor: offset, shape and strides, in elements, into a storage; whoever makes one checks that it fits."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype):
        self.storage, self.offset, self.shape, self.strides, self.dtype = storage, offset, shape, strides, dtype

    def array(self) -> np.ndarray:
        """The tensor as a view of the storage's bytes."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        size = self.dtype.itemsize
        # A side of length 1 is never stepped along, so its stride may be anything in the file.
        steps = tuple(step * size if side > 1 else 0 for side, step in zip(self.shape, self.strides, strict=True))
        # NumPy checks the bounds once more.
        return np.ndarray(self.shape, self.dtype, self.storage.data, self.offset * size, steps)
