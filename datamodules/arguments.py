"""Checks of arguments that several datamodules share; each raises a one-line ValueError that names the argument."""

from collections.abc import Sequence


def check_at_least(least: int, **sizes: int | None) -> None:
    """Rejects sizes below ``least``; None means not given."""
    for name, size in sizes.items():
        if size is not None and size < least:
            raise ValueError(f"{name} ({size}) must be at least {least}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Rejects a value that is not one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} ({value}) must be {' or '.join(choices)}")


def check_val_fraction(val_fraction: float) -> None:
    """Rejects a fraction that leaves nothing for validation or for training."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction ({val_fraction}) must be strictly between 0 and 1")


def check_seed(seed: int) -> None:
    """Rejects a seed that some random number generator does not accept."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed ({seed}) must be at least 0 and below 2**32")
