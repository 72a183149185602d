"""EfficientNet-Lite: compared whole in full size, in test_parity.py; its blocks are those of mobilenetv2."""

CASES = ()
