"""`python -m jaxft` is `jaxft`."""

from jaxft.cli.main import entry

entry()
