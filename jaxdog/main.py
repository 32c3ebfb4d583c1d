"""The command line: `jaxdog COMMAND ...`, or `python -m jaxdog.main --config configs/biggan.py ...`.

    jaxdog train biggan [--data FOLDER] [--config.x.y=v] [--workdir RUN]
    python -m jaxdog.main --config configs/biggan.py [--config.x.y=v] [--workdir RUN] [--mode MODE]

The commands are in `cli`. `--help` works without importing JAX.
"""

from jaxdog.cli import entry


def run() -> None:
    """Entry point of the console script."""
    entry.run()


if __name__ == "__main__":
    run()
