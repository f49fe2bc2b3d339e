"""Checks of arguments that several datamodules have; each raises ValueError with a line that names the argument."""

from collections.abc import Sequence


def check_at_least(least: int, **sizes: int | None) -> None:
    """Refuses sizes below ``least``; None is one that was left out."""
    for name, size in sizes.items():
        if size is not None and size < least:
            raise ValueError(f"{name} ({size}) must be at least {least}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuses what is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} ({value}) must be {' or '.join(choices)}")


def check_val_fraction(val_fraction: float) -> None:
    """Refuses a share that leaves nothing for validation, or nothing for training."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction ({val_fraction}) must lie between 0 and 1, without the ends")


def check_seed(seed: int) -> None:
    """Refuses a seed that not all generators of random numbers take."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed ({seed}) must be at least 0 and below 2**32")
