"""What the environment says of the processes of a run, before torch.distributed is up."""

import os

# Set by the first process for those that Lightning starts for the other devices.
ENVIRONMENT_VARIABLE = "EXPERIMENT_RUN_FOLDER"


def num_launched_processes() -> int:
    """How many processes an outer launcher (torchrun, SLURM) has started; 1 where Lightning starts its own."""
    return _first_number("WORLD_SIZE", "SLURM_NTASKS", otherwise=1)


def process_rank() -> int:
    """The rank that the launcher gave this process, before torch.distributed is up."""
    return _first_number("RANK", "SLURM_PROCID", "LOCAL_RANK", otherwise=0)


def _first_number(*variables: str, otherwise: int) -> int:
    # A shell within an allocation has SLURM's variables too, but one process: Lightning tells it by the job's name.
    in_shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    asked = [name for name in variables if not (in_shell and name.startswith("SLURM_"))]
    return next((int(os.environ[name]) for name in asked if os.environ.get(name, "").isdigit()), otherwise)
