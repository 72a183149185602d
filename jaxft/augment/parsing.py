"""Lists of augmentations, as they stand in a config: "random_resized_crop(0.5), random_flip, random_rotation(10), mixup"."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from jaxft.augment import mix
from jaxft.augment.recipe import MATRICES, PIXELS, Augment, Operation, Window
from jaxft.errors import JaxftError, near
from jaxft.losses import import_function

#: Lists by name. A name may stand in a list.
AUGMENTS = {
    "none": "",
    "crop_flip": "random_resized_crop, random_flip",
    "crop": "random_resized_crop",
    "mild_flip": "random_resized_crop(0.5), random_flip",
    "light": "random_resized_crop(0.7, ratio=(0.9, 1.1111111111111112))",
    "pad_flip": "random_crop(padding=4), random_flip",
}


def _resized_crop(scale: Any = (0.08, 1.0), ratio: Any = (3 / 4, 4 / 3)) -> Window:
    """`scale` may be its lower end alone."""
    try:
        (low, high), (narrow, wide) = (scale if isinstance(scale, tuple) else (scale, 1.0)), ratio
        sound = 0 < low <= high <= 1 and 0 < narrow <= wide
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise JaxftError(
            f"random_resized_crop({scale}, {ratio}): shares of the area between 0 and 1, then width over height, smaller first"
        )
    return Window((float(low), float(high)), (float(narrow), float(wide)))


def _crop(margin: int = 0, padding: int = 0, fill: float = 0.0) -> Window:
    if not all(isinstance(one, int) and one >= 0 for one in (margin, padding)) or not margin + padding:
        raise JaxftError(f"random_crop(margin={margin}, padding={padding}): whole pixels to crop from, of at least one of them")
    return Window(margin=margin)


_WINDOWS: dict[str, Callable[..., Window]] = {"random_resized_crop": _resized_crop, "random_crop": _crop}
#: A function of the user's own, and what stands for it in Python's grammar. What is in quotes is an option.
_OWN = r"""(?<!['"\w.])[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"""
_HIDDEN = "own_function"
_P = inspect.Parameter("p", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=1.0)


def _signature(function: Callable[..., Any], *more: inspect.Parameter) -> inspect.Signature:
    """The options of an operation: what its function takes besides the example, all of them by place too."""
    given = ("key", "image", "other", "label", "classes", "size")
    taken = [one for name, one in inspect.signature(function).parameters.items() if name not in given]
    return inspect.Signature([*(one.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in taken), *more])


#: The options of each operation, in the order in which a user is told of them.
_SIGNATURES: dict[str, inspect.Signature] = {
    **{name: inspect.signature(function) for name, function in _WINDOWS.items()},
    **{name: _signature(function) for name, function in (MATRICES | PIXELS).items()},
    "random_label_flip": _signature(mix.random_label_flip),
    "mixup": _signature(mix.mixup, _P),
    "cutmix": _signature(mix.cutmix, _P),
}
OPERATIONS = tuple(_SIGNATURES)


def parse(text: str | Augment, *, interpolation: str = "bilinear", fill: float = 0.0) -> Augment:
    """Reads a list of augmentations.

    Args:
      text: names of `OPERATIONS` with options, as Python writes calls, or of `AUGMENTS`, with commas between; "" is none.
        "module:function" is a change of pixels of your own, `(key, image, ...) -> image`, f32 or uint8 [H, W, C] of 0 to 255.
      interpolation: "bilinear" or "nearest".
      fill: what lies outside the picture, 0 to 255.

    Raises:
      JaxftError: no such name or option, one twice, a crop that does not stand first.
    """
    if isinstance(text, Augment):
        return text
    window = Window()
    operations: list[Operation] = []
    for place, (name, given) in enumerate(_calls(text)):
        if name not in _SIGNATURES and ":" not in name:
            raise JaxftError(
                f"no augmentation is called '{name}'{near(name, (*AUGMENTS, *OPERATIONS))}; there are "
                f"{', '.join((*AUGMENTS, *OPERATIONS))}"
            )
        options = _options(name, given)
        if any(one.name == name for one in operations):
            raise JaxftError(f"the augmentation '{name}' stands in the list twice")
        if name in _WINDOWS:
            if place:
                raise JaxftError(f"'{name}' is taken while a picture is read: it must stand first, and there can be but one")
            window = _WINDOWS[name](**options)
        if name != "random_resized_crop":
            operations.append(Operation(name, tuple(options.items()), place))
    shares = {one.name: one.option("p") for one in operations if one.name in ("mixup", "cutmix")}
    if len(set(shares.values())) > 1:
        raise JaxftError(f"mixup and cutmix take turns, so they need one p, not {' and '.join(map(str, shares.values()))}")
    return Augment(window, tuple(operations), interpolation, fill)


def _calls(text: str) -> list[tuple[str, tuple[list[Any], dict[str, Any]]]]:
    """(name, (positional, named options)) of each entry, names of `AUGMENTS` replaced by what they stand for."""
    own = re.findall(_OWN, text)
    try:
        # Python has no names with a colon: until the text is taken apart they have others.
        listed = ast.parse(f"[{re.sub(_OWN, _HIDDEN, text)}]", mode="eval").body
    except (SyntaxError, ValueError):
        listed = None
    if not isinstance(listed, ast.List):
        raise JaxftError(
            f"the augmentations '{text}' cannot be read: names with commas between, e.g. 'random_flip, random_rotation(10)'"
        )
    found: list[tuple[str, tuple[list[Any], dict[str, Any]]]] = []
    for entry in listed.elts:
        written = ast.unparse(entry).replace(_HIDDEN, own[0] if own else "", 1)
        call = entry if isinstance(entry, ast.Call) else None
        name = call.func if call is not None else entry
        if not isinstance(name, ast.Name):
            raise JaxftError(f"'{written}' in '{text}' is no augmentation: name, or name(option, option=value)")
        called = own.pop(0) if name.id == _HIDDEN else name.id
        if call is None and name.id in AUGMENTS:
            found += _calls(AUGMENTS[name.id])
            continue
        try:
            positional = [ast.literal_eval(one) for one in call.args] if call else []
            named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords} if call else {}
        except ValueError as error:
            said = f"the options of '{written}' must be numbers, words in quotes or pairs of them"
            raise JaxftError(said) from error
        found.append((called, (positional, named)))
    return found


def _options(name: str, given: tuple[list[Any], dict[str, Any]]) -> Mapping[str, Any]:
    """All options of an operation, those not given with their defaults."""
    signature = _SIGNATURES[name] if ":" not in name else _signature(import_function(name, "the augmentation"))
    positional, named = given
    for key in named:
        if key not in signature.parameters:
            raise JaxftError(f"'{name}' takes no option '{key}'{near(key, signature.parameters)}; it takes {_told(signature)}")
    try:
        bound = signature.bind(*positional, **named)
    except TypeError as error:
        raise JaxftError(f"'{name}': {error}; it takes {_told(signature)}") from error
    bound.apply_defaults()
    p = bound.arguments.get("p", 0.5)
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise JaxftError(f"'{name}': p is {p!r}: a probability lies between 0 and 1")
    alpha = bound.arguments.get("alpha", 1.0)
    if not isinstance(alpha, int | float) or not alpha > 0:
        raise JaxftError(f"'{name}': alpha is {alpha!r}: it must be above 0")
    return bound.arguments


def _told(signature: inspect.Signature) -> str:
    """The options as a list writes them, without types."""
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(inspect.Signature(bare))
