"""EfficientNet-Lite: compared whole in full size, in test_parity.py; its blocks are those of mobilenetv2."""

CASES = ()


def _full_timm(lib, name):
    return lib.timm.create_model(f"tf_{name}")


FULL = {"timm": _full_timm}
