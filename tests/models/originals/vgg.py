"""VGG: one is compared in full size, in test_parity.py."""

CASES = ()
