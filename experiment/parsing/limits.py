"""The least value of each option that is a number: Lightning and torch take others, and fail or mislead later."""

from collections.abc import Mapping

from jsonargparse import Namespace

from ..errors import UserError

# -1 stands for "no limit" or "all" where it is allowed.
LEAST: Mapping[str, float] = {
    "save_every": 0,
    "min_steps": 0,
    "seed_everything": 0,
    "trainer.max_epochs": -1,
    "trainer.min_epochs": 0,
    "trainer.max_steps": -1,
    "trainer.min_steps": 0,
    "trainer.num_nodes": 1,
    "trainer.limit_train_batches": 0,
    "trainer.limit_val_batches": 0,
    "trainer.limit_test_batches": 0,
    "trainer.limit_predict_batches": 0,
    "trainer.overfit_batches": 0,
    "trainer.fast_dev_run": 0,
    "trainer.val_check_interval": 0,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.num_sanity_val_steps": -1,
    "trainer.log_every_n_steps": 0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.gradient_clip_val": 0,
    "trainer.reload_dataloaders_every_n_epochs": 0,
}
MOST = {"seed_everything": 2**32 - 1}


def check_limits(config: Namespace) -> None:
    """Refuses values out of range.

    Raises:
        UserError: names the option.
    """
    for key, least in LEAST.items():
        value = config.get(key)
        if not isinstance(value, int | float):
            continue
        if not value >= least:  # NaN is not, either
            or_none = "; -1: no limit" if least == -1 else ""
            raise UserError(f"--{key}={value}: must be at least {least}{or_none}")
        if value > MOST.get(key, float("inf")):
            raise UserError(f"--{key}={value}: must be at most {MOST[key]}")
    for key in ("run_dir", "resume", "init_from"):
        if config.get(key) == "":
            raise UserError(f"--{key} needs a value")
    if str(config.get("data.init_args.source", "x")).strip() == "":  # the folder where the process works would be read
        raise UserError("--data.source needs a value")
    devices = config.get("trainer.devices")
    if str(devices).lstrip("-").isdigit() and int(devices) < 1 and int(devices) != -1:
        raise UserError(f"--trainer.devices={devices}: must be at least 1; -1: all GPUs")
