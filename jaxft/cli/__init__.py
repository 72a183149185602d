"""The command line: `jaxft train | eval | predict | inspect | convert | models`."""
