"""The command line: `jaxdog COMMAND`. See `entry.py`."""
