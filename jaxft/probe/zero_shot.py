"""Classes told by texts: the zero-shot classifier of CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023)."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxft.errors import JaxftError, near
from jaxft.probe.nearest import normalized

#: CLIP keeps the logarithm of its scale below that of 100, where its training ends.
LOGIT_SCALE = math.log(100)
_KEYS = ("class_names", "embeddings", "logit_scale", "logit_bias")


@dataclasses.dataclass(frozen=True)
class TextClassifier:
    """What the texts of each class make of an image embedding.

    Attributes:
      class_names: K names.
      embeddings: [K, E] f32 of length 1.
      scale: what cosine similarities are multiplied by.
      bias: what is added to all logits.
      sha256: of the file they were read from; "" where they were not.
    """

    class_names: tuple[str, ...]
    embeddings: np.ndarray
    scale: float = 100.0
    bias: float = 0.0
    sha256: str = ""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """[N, K] f32 of image embeddings [N, E] in the space of the texts, of any length: scale * cosine + bias.

        Raises:
          JaxftError: embeddings of another width.
        """
        width = self.embeddings.shape[1]
        if np.ndim(images) != 2 or np.shape(images)[1] != width:
            raise JaxftError(
                f"image embeddings are {list(np.shape(images))}, those of the texts [K, {width}]: not the same width"
            )
        return self.scale * normalized(images) @ self.embeddings.T + np.float32(self.bias)

    def ordered(self, class_names: Sequence[str]) -> TextClassifier:
        """The same for these classes, in their order.

        Raises:
          JaxftError: a class without texts.
        """
        place = {name: number for number, name in enumerate(self.class_names)}
        if missing := [name for name in class_names if name not in place]:
            raise JaxftError(
                f"{len(missing)} of {len(class_names)} classes have no text, '{missing[0]}' first"
                f"{near(missing[0], self.class_names)}: class_names of the file must name all classes of the data"
            )
        rows = [place[name] for name in class_names]
        return dataclasses.replace(self, class_names=tuple(class_names), embeddings=self.embeddings[rows])


def text_classifier(
    class_names: Sequence[str],
    embeddings: np.ndarray,
    *,
    logit_scale: float = LOGIT_SCALE,
    logit_bias: float = 0.0,
) -> TextClassifier:
    """The classifier of text embeddings.

    Args:
      class_names: K names.
      embeddings: [K, E], or of T texts a class [K, T, E]: each is brought to length 1, then a class's are averaged, and their
        mean is brought to length 1 (Radford et al., 2021, section 3.1.4).
      logit_scale: the LOGARITHM of the scale, as CLIP and SigLIP keep it.
      logit_bias: SigLIP's.

    Raises:
      JaxftError: shapes that do not fit, an embedding of zeros or not finite, a name that comes twice, a scale that is no
        logarithm.
    """
    names = tuple(str(name) for name in class_names)
    found = np.asarray(embeddings, np.float32)
    if found.ndim not in (2, 3) or len(found) != len(names) or 0 in found.shape:
        raise JaxftError(f"embeddings are {list(found.shape)} for {len(names)} class_names, not [K, E] or [K, T, E]")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise JaxftError(f"class_names has '{doubled[0]}' twice: several texts of a class are embeddings [K, T, E]")
    length = np.linalg.norm(found, axis=-1)
    if not np.isfinite(length).all() or not length.all():
        raise JaxftError("an embedding is zero or not finite")
    if not -10 < logit_scale < 10:
        raise JaxftError(
            f"logit_scale is {logit_scale:g}: it is the logarithm of the scale, as CLIP and SigLIP keep it (log 100 is 4.6052)"
        )
    found = normalized(found) if found.ndim == 2 else normalized(normalized(found).mean(1))
    return TextClassifier(names, found, math.exp(logit_scale), float(logit_bias))


def read_texts(file: str | Path) -> TextClassifier:
    """Reads text embeddings: an `.npz` with `class_names` and `embeddings`, and if there `logit_scale` and `logit_bias`; see
    `text_classifier`.

    Raises:
      JaxftError: no such file, another kind of file, other arrays.
    """
    path = Path(file).expanduser()
    try:
        content = path.read_bytes()
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise JaxftError(f"cannot read the text embeddings '{file}': {error.strerror or error}") from error
    except Exception as error:  # what zipfile, zlib and NumPy's header parser raise on other bytes is no closed list
        raise JaxftError(f"'{file}' is no .npz of arrays ({str(error)[:100]}): write it with numpy.savez") from error
    for name in _KEYS[:2]:
        if name not in found:
            raise JaxftError(f"'{file}' has no '{name}'{near(name, found)}: it must hold {', '.join(_KEYS[:2])}")
    for name in found:
        if name not in _KEYS:
            raise JaxftError(f"'{file}' has '{name}'{near(name, _KEYS)}; it may hold {', '.join(_KEYS)}")
    more = {name: found[name] for name in _KEYS[2:] if name in found}
    for name, value in more.items():
        if value.size != 1 or value.dtype.kind not in "fiu":
            raise JaxftError(f"'{file}': {name} is of {list(value.shape)}, not one number")
    try:
        made = text_classifier(
            found["class_names"].tolist(), found["embeddings"], **{name: value.item() for name, value in more.items()}
        )
    except JaxftError as error:
        raise JaxftError(f"'{file}': {error}") from error
    return dataclasses.replace(made, sha256=hashlib.sha256(content).hexdigest())
