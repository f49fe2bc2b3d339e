"""The endings of the files that predictions are written to."""

from collections.abc import Sequence
from pathlib import Path


def check_ending(output: Path | str, endings: Sequence[str]) -> None:
    """Refuses an output with another ending, before anything is computed; ``""`` stands for none.

    Raises:
        ValueError: names the endings.
    """
    if Path(output).suffix.lower() not in endings:
        raise ValueError(f"output ({output}) must end in {' or '.join(filter(None, endings))}")
