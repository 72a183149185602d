"""Operations that are compared with torchvision, at fixed parameters; scripts/make_augment_fixtures.py reads it too."""

import numpy as np

#: Of scikit-learn's two pictures, the part that is looked at: rows, columns.
PARTS = {"china": (slice(90, 330), slice(160, 480)), "flower": (slice(60, 261), slice(120, 421))}
#: So many of the result's values are kept of each case.
KEPT = 1500

#: name -> (operation, parameters).
CASES = {
    "rotate": ("rotate", {"degrees": 17.0, "interpolation": "bilinear"}),
    "rotate far": ("rotate", {"degrees": -140.0, "interpolation": "bilinear"}),
    "rotate nearest": ("rotate", {"degrees": 33.0, "interpolation": "nearest"}),
    "affine": ("affine", {"degrees": 11.0, "dx": 12.0, "dy": -7.0, "scale": 1.2, "shear": (8.0, -5.0)}),
    "affine small": ("affine", {"degrees": -4.0, "dx": -30.0, "dy": 3.0, "scale": 0.6, "shear": (0.0, 12.0)}),
    "scale up": ("affine", {"degrees": 0.0, "dx": 0.0, "dy": 0.0, "scale": 1.4, "shear": (0.0, 0.0)}),
    "perspective": ("perspective", {"moved": ((20, 30), (280, 5), (270, 190), (3, 170))}),
    "perspective strong": ("perspective", {"moved": ((90, 80), (200, 20), (299, 199), (60, 120))}),
    "brightness up": ("brightness", {"factor": 1.7}),
    "brightness down": ("brightness", {"factor": 0.35}),
    "contrast up": ("contrast", {"factor": 1.8}),
    "contrast down": ("contrast", {"factor": 0.2}),
    "saturation up": ("saturation", {"factor": 1.9}),
    "saturation down": ("saturation", {"factor": 0.1}),
    "hue": ("hue", {"turn": 0.13}),
    "hue back": ("hue", {"turn": -0.5}),
    "grey": ("grey", {}),
    "invert": ("invert", {}),
    "posterize 1": ("posterize", {"bits": 1}),
    "posterize 5": ("posterize", {"bits": 5}),
    "solarize": ("solarize", {"threshold": 110.0}),
    "autocontrast": ("autocontrast", {}),
    "equalize": ("equalize", {}),
    "sharpness up": ("sharpness", {"factor": 2.0}),
    "sharpness down": ("sharpness", {"factor": 0.1}),
    "blur": ("blur", {"sigma": 1.7, "radius": 7}),
    "blur wide": ("blur", {"sigma": 5.0, "radius": 11}),
    "erase": ("erase", {"window": (50, 30, 100, 60)}),
}

#: Operations of the policies: ours, torchvision's, whether they have a sign.
POLICY = {
    "shear_x": ("ShearX", True),
    "shear_y": ("ShearY", True),
    "translate_x": ("TranslateX", True),
    "translate_y": ("TranslateY", True),
    "rotate": ("Rotate", True),
    "brightness": ("Brightness", True),
    "saturation": ("Color", True),
    "contrast": ("Contrast", True),
    "sharpness": ("Sharpness", True),
    "posterize": ("Posterize", False),
    "solarize": ("Solarize", False),
    "autocontrast": ("AutoContrast", False),
    "equalize": ("Equalize", False),
}
#: Of 31 bins, for RandAugment and for TrivialAugment.
BINS = (9, 30)


def photograph(name, pictures):
    """A part of one of scikit-learn's pictures: uint8 [H, W, 3]."""
    (number,) = [i for i, file in enumerate(pictures.filenames) if name in file]
    return np.ascontiguousarray(pictures.images[number][PARTS[name]])


def kept(values, name):
    """Some of a result's values, at places that the name draws."""
    rng = np.random.default_rng([*name.encode()])
    return np.asarray(values, np.float32).ravel()[rng.integers(0, np.size(values), KEPT)]
