import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights and data drawn in a test are the same in every run."""
    torch.manual_seed(0)
