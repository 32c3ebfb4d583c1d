"""Scores of any images against any others, without a run: `jaxdog score`, also as

    python -m jaxdog.score --real PATH --fake PATH [--weights PATH] [--out scores.json]

No module imports this one, since `jaxdog.score` is the function of `api.py`.
"""

from jaxdog.cli import entry

if __name__ == "__main__":
    entry.run_score()
