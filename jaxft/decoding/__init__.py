"""From a picture's bytes to a square of uint8 pixels, on the host: exact, bounded in memory, in threads or processes.

No module here imports JAX, or what reads data sets: a process that decodes starts quickly and stays small.
"""
