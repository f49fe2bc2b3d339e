"""Any image backbone of Hugging Face for the encoder slot."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .encoders import Encoder, EncoderOutput

LEAST_SIDE = 4  # of the local map, where the backbone has such a map


class HuggingFaceVisionEncoder(Encoder):
    """A backbone of ``transformers`` (ResNet, Swin, DINOv2 … what ``AutoBackbone`` knows) with a linear head.

    The feature vector is the mean over the places of the backbone's last map, the code a linear function of it. The
    local map is that of an earlier stage: by default the last one that still has 4 x 4 places (the finest, if none
    has). For the global objective the map is averaged and goes through one hidden layer, as a backbone can't be cut.

    Pretrained backbones expect pixels of mean 0 and standard deviation 1: ``data.pixel_range: [-2.1, 2.4]`` comes near
    the usual normalisation. The untrained encoder that the test compares with has fresh weights, not pretrained ones.

    A ``FeatureProbe`` cuts it at ``encoder.conv`` (the last map), ``encoder.pooling`` (the vector) or ``encoder.mean``.

    Args:
        image_size: side of the images in pixels; passed by the module that owns the encoder.
        model: folder, or name on the hub, of a pretrained backbone.
        config: instead of ``model``: a configuration, whose weights are then fresh: a folder or file of one, or its
            entries, ``model_type`` among them.
        code_size: length of the code.
        local_stage: the stage of the local map, by its name in the backbone's ``stage_names``.
        stochastic: add a head for the log-variance, which the Gaussian prior needs.
        in_channels: channels of the images; given by the module.

    Raises:
        ValueError: if not one of ``model`` and ``config`` is given, it can't be loaded or built as a backbone, has no
            such stage, or can't read images of this size and number of channels.
        ImportError: if transformers is not installed.

    Example:
        model:
          encoder:
            class_path: HuggingFaceVisionEncoder
            init_args:
              config: {model_type: resnet, embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1], layer_type: basic}
          prior_weight: 0.0
    """

    checkpoint_arguments = ("model", "config", "local_stage")

    def __init__(
        self,
        image_size: int = 32,
        model: str | None = None,
        config: dict | str | None = None,
        code_size: int = 64,
        local_stage: str | None = None,
        stochastic: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        given = config if model is None else model
        if given is None or (model is not None and config is not None):
            raise ValueError("encoder: name a pretrained backbone (encoder.model) or a configuration (encoder.config)")
        loaded = _configuration(given, image_size, in_channels)
        stages = list(getattr(loaded, "stage_names", None) or [])
        if local_stage is not None and local_stage not in stages:
            raise ValueError(f"encoder.local_stage: {local_stage} is none of {', '.join(stages)}")
        if local_stage is None:
            local_stage = _default_stage(loaded, stages, image_size)
        self.backbone = _Maps(_build(loaded, [local_stage, stages[-1]], model))
        self.conv = nn.Identity()  # a name for the last map
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        local, conv = self._try(torch.zeros(1, in_channels, image_size, image_size))
        self.code_size, self.local_size, self.stochastic = code_size, local.shape[1], stochastic
        self.mean = nn.Linear(conv.shape[1], code_size)
        self.logvar = nn.Linear(conv.shape[1], code_size) if stochastic else None

    def _try(self, images: Tensor) -> list[Tensor]:
        """The maps of an image; parameters that have no part in them are frozen, as processes would wait for them."""
        mode = self.backbone.training
        maps = _readable(self.backbone.eval(), images)
        sum(part.sum() for part in maps).backward()  # type: ignore[union-attr]
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.backbone.train(mode)
        return maps

    def forward(self, images: Tensor) -> EncoderOutput:
        maps = self.backbone(images)
        conv = self.conv(maps[1])
        fc = self.pooling(conv)
        logvar = self.logvar(fc) if self.logvar is not None else None
        return EncoderOutput(local=maps[0], conv=conv, fc=fc, mean=self.mean(fc), logvar=logvar)

    def global_network(self, units: int) -> nn.Module:
        hidden = max(units, self.local_size)
        return nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.local_size, hidden)),
            *(nn.ReLU(), nn.Linear(hidden, units)),
        )

    def reset_parameters(self) -> None:
        # Backbones have parameters outside of torch's layers, and their own way to begin.
        fresh = _build(self.backbone.network.config, self.backbone.stages)
        self.backbone.network.load_state_dict(fresh.state_dict())
        for head in (self.mean, self.logvar):
            if head is not None:
                head.reset_parameters()

    def portable_arguments(self) -> dict[str, Any]:
        # All entries: those left out would be the class's, and the image size the data's.
        config = json.loads(self.backbone.network.config.to_json_string(use_diff=False))
        return {"model": None, "config": config, "local_stage": self.backbone.stages[0]}


class _Maps(nn.Module):
    """The maps of two stages, the earlier one first; one map may be both."""

    network: Any  # a backbone, with attributes that torch's modules don't have
    stages: list[str]

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.stages = [network.out_features[0], network.out_features[-1]]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.network(images).feature_maps
        return maps[0], maps[-1]


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ImportError('HuggingFaceVisionEncoder needs transformers: pip install "transformers>=5.10"') from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _configuration(given: dict | str, image_size: int, in_channels: int) -> Any:
    """The configuration; one made of entries is for such images unless it says another size or number."""
    transformers = _transformers()
    try:
        if isinstance(given, str):
            options = {"local_files_only": True} if Path(given).exists() else {}
            loaded, said = transformers.AutoConfig.from_pretrained(given, **options), None
        else:
            said = dict(given)
            loaded = transformers.AutoConfig.for_model(said.pop("model_type", "(none given)"), **said)
    except Exception as error:  # transformers and the hub raise nearly any
        raise ValueError(
            f"encoder: no configuration of a backbone in {given} ({_one_line(error)}): name a folder with config.json, "
            "or entries with model_type"
        ) from error
    for name, value in (("image_size", image_size), ("num_channels", in_channels)):
        if said is not None and hasattr(loaded, name) and name not in said:
            present = getattr(loaded, name)
            setattr(loaded, name, [value] * len(present) if isinstance(present, list | tuple) else value)
    number = getattr(loaded, "num_channels", 3)
    if number != in_channels:
        raise ValueError(
            f"encoder: the backbone reads images of {number} channels, the data's have {in_channels}: set "
            f"data.channels={number}"
        )
    return loaded


def _build(config: Any, stages: list[str], model: str | None = None) -> Any:
    """A backbone that returns the maps of these stages: with a model's weights, or fresh ones."""
    transformers = _transformers()
    wanted = list(dict.fromkeys(stages))
    try:
        config = type(config).from_dict(config.to_dict())  # with its own choice of stages
        config.out_features = wanted
        if model is None:
            return transformers.AutoBackbone.from_config(config)
        with torch.device("meta"):
            kind = type(transformers.AutoBackbone.from_config(config))
        # AutoBackbone's own ``from_pretrained`` takes a folder for a name on the hub.
        options = {"local_files_only": True} if Path(model).exists() else {}
        return kind.from_pretrained(model, config=config, **options)
    except Exception as error:  # a kind of network that is none, weights that are not there, a faulty version
        raise ValueError(
            f"encoder: {model or config.model_type} can't be built as a backbone by transformers "
            f"{transformers.__version__} ({_one_line(error)}): take another, such as resnet, swin or dinov2"
        ) from error


def _default_stage(config: Any, stages: list[str], image_size: int) -> str:
    """The last stage before the last with ``LEAST_SIDE`` x ``LEAST_SIDE`` places, else the finest one."""
    if not stages:
        raise ValueError(f"encoder: {getattr(config, 'model_type', config)} is no backbone with stages in transformers")
    try:  # large networks take a while to build, but not where there are shapes only
        maps = _trial(config, stages, image_size, "meta")
    except ValueError:  # some need values, too; or this says what is wrong
        maps = _trial(config, stages, image_size, "cpu")
    sides = [min(part.shape[-2:]) for part in maps]
    earlier = range(max(1, len(stages) - 1))
    fine = [number for number in earlier if sides[number] >= LEAST_SIDE]
    return stages[fine[-1] if fine else max(earlier, key=lambda number: sides[number])]


def _trial(config: Any, stages: list[str], image_size: int, device: str) -> list[Tensor]:
    """The maps that a network with fresh weights makes of an image."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device(device):
        images = torch.zeros(1, getattr(config, "num_channels", 3), image_size, image_size)
        return _readable(_build(config, stages).eval(), images)


def _readable(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps of images.

    Raises:
        ValueError: if the network can't read images of this size.
    """
    try:
        output = network(images)
    except (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"encoder: it can't read images of {images.shape[-1]} pixels ({_one_line(error)})") from error
    maps = list(output if isinstance(output, tuple) else output.feature_maps)
    if any(part.ndim != 4 for part in maps):
        raise ValueError(f"encoder: its features are {tuple(maps[-1].shape)}, no maps of places: take another backbone")
    if not all(part.numel() for part in maps):
        raise ValueError(
            f"encoder: no places are left of images of {images.shape[-1]} pixels: set data.image_size higher"
        )
    return maps


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__
