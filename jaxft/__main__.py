"""`python -m jaxft` is `jaxft`."""

from jaxft.cli.main import entry

if __name__ == "__main__":
    entry()
