"""The command line: `jaxft train | eval | predict | inspect | explain-step | convert | models`."""
