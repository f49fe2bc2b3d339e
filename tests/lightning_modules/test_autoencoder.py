"""AutoEncoder: losses against their formulas, training, test and prediction, without any target."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from callbacks import NearestNeighbors, Reconstructions
from datamodules import ImageDataModule
from layers import BlogEncoder, ConvolutionalDecoder, DenseDecoder, DenseEncoder, VariationalCode, collect_losses
from lightning_modules import AutoEncoder
from tests.tools import Album, quiet_trainer

SMALL = {
    "encoder": partial(BlogEncoder, channels=16, code_size=8),
    "decoder": partial(ConvolutionalDecoder, channels=16),
    "image_size": 16,
}
PLAIN = {**SMALL, "encoder": partial(BlogEncoder, channels=16, code_size=8, stochastic=False)}


def images(count: int = 6, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) - 0.5


def data() -> ImageDataModule:
    sizes = {"sample_train_size": 150, "sample_test_size": 40, "batch_size": 16, "eval_batch_size": 64}
    return ImageDataModule(source="sample", image_size=16, **sizes)


def fitted(module: AutoEncoder, *callbacks: pl.Callback, logger=False) -> pl.Trainer:
    trainer = quiet_trainer(*callbacks, logger=logger)
    trainer.fit(module, data())
    return trainer


def test_the_plain_form_is_the_articles_mean_squared_error():
    """One linear layer with ReLU and one with a sigmoid, on values from 0 to 1."""
    torch.manual_seed(0)
    module, x = AutoEncoder(partial(DenseEncoder, code_size=10), DenseDecoder, image_size=16), images()
    with collect_losses(module) as losses:
        module(x)
    encoder, decoder = module.encoder.layers[1], module.decoder.layers[0]
    flat = (x + 0.5).flatten(1)
    hidden = ((flat - 0.5) @ encoder.weight.T + encoder.bias).clamp(min=0)
    expected = ((torch.sigmoid(hidden @ decoder.weight.T + decoder.bias) - flat) ** 2).mean()
    torch.testing.assert_close(losses.total(), expected)
    assert list(losses.values()) == ["reconstruction"]


def test_the_variational_loss_is_that_of_the_formula():
    torch.manual_seed(0)
    module, x = AutoEncoder(**SMALL, beta=0.5).eval(), images()
    state = torch.get_rng_state()
    with collect_losses(module) as losses:
        module(x)
    torch.set_rng_state(state)
    output = module.encoder(x)
    drawn = output.mean + torch.exp(output.logvar / 2) * torch.randn_like(output.mean)
    error = ((module.decoder(drawn) - (x + 0.5)) ** 2).mean()
    normal, posterior = (
        torch.distributions.Normal(0.0, 1.0),
        torch.distributions.Normal(output.mean, torch.exp(output.logvar / 2)),
    )
    kl = torch.distributions.kl_divergence(posterior, normal).sum(1).mean()
    torch.testing.assert_close(losses.values()["reconstruction"], error.detach())
    torch.testing.assert_close(losses.values()["kl"], kl.detach())
    torch.testing.assert_close(losses.total(), error + 0.5 * kl / (3 * 16 * 16))


def test_a_code_that_is_the_prior_costs_nothing():
    layer, zeros = VariationalCode(4), torch.zeros(3, 4, requires_grad=True)
    with collect_losses(layer) as losses:
        layer(zeros, zeros)
    assert losses.total() == 0


@pytest.mark.parametrize("size", [8, 16, 20, 32, 64])
def test_decoders_give_images_of_the_right_size_and_range(size: int):
    codes = torch.randn(2, 5)
    for decoder in (ConvolutionalDecoder(5, size, 16), DenseDecoder(5, size)):
        drawn = decoder(codes)
        assert drawn.shape == (2, 3, size, size)
        assert 0 <= drawn.min() < drawn.max() <= 1
    with pytest.raises(ValueError, match=r"channels \(6\) must be divisible by 8"):
        ConvolutionalDecoder(5, 32, 6)


@pytest.mark.parametrize("arguments", [PLAIN, SMALL], ids=["plain", "variational"])
def test_it_trains_tests_and_makes_pictures(arguments: dict):
    torch.manual_seed(0)
    module, album = AutoEncoder(**arguments, lr=3e-3), Album()
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    callbacks = [Reconstructions(num_images=5, num_sample_rows=2), NearestNeighbors(3, 3)]
    trainer = fitted(module, *callbacks, logger=album)
    assert all(not torch.equal(before[name], parameter) for name, parameter in module.named_parameters())
    expected = {"loss", "reconstruction"} | ({"kl"} if module.variational else set())
    for stage in ("train", "val"):
        assert {f"{stage}/{name}" for name in expected} <= trainer.callback_metrics.keys()
    metrics = {name: value for result in trainer.test(module, data(), verbose=False) for name, value in result.items()}
    assert set(metrics) == {f"test/{name}" for name in expected | {"knn_accuracy"}}
    loss = metrics["test/reconstruction"] + 0.02 * metrics.get("test/kl", 0.0) / (3 * 16 * 16)
    assert metrics["test/loss"] == pytest.approx(loss, rel=1e-5)
    again = {name: value for result in trainer.test(module, data(), verbose=False) for name, value in result.items()}
    assert metrics == again
    assert set(album.pictures) == {"reconstructions", "nearest_neighbors"}


def test_the_picture_has_images_above_their_reconstructions_and_samples():
    torch.manual_seed(0)
    module, album = AutoEncoder(**SMALL), Album()
    trainer = fitted(module, Reconstructions(num_images=4, num_sample_rows=1), logger=album)
    trainer.test(module, data(), verbose=False)
    picture = album.pictures["reconstructions"][0]
    test_images = torch.cat(data_batches())
    # 16 pixels, enlarged four (72 / 16) times.
    tile, step = 64, 70
    left = picture.shape[1] - 4 * step - 6
    tiles = [
        [picture[6 + top : 6 + top + tile : 4, left + c * step : left + c * step + tile : 4] for c in range(4)]
        for top in (0, step, 2 * step + 18)
    ]
    pixels = [((image + 0.5) * 255).round().byte().permute(1, 2, 0).numpy() for image in test_images]
    for column in range(4):
        assert any(np.array_equal(tiles[0][column], image) for image in pixels)
    drawn = module.sample_images(4, 0) + 0.5
    for column, image in enumerate(drawn):
        assert np.array_equal(tiles[2][column], (image * 255).round().byte().permute(1, 2, 0).numpy())


def data_batches() -> list[Tensor]:
    """The test images, as the module receives them."""
    module = data()
    module.setup()
    loader = module.test_dataloader()[0]
    return [module.on_after_batch_transfer(batch, 0).images for batch in loader]


def test_samples_depend_on_the_seed_and_need_the_variational_form():
    module = AutoEncoder(**SMALL)
    state = torch.get_rng_state()
    assert torch.equal(module.sample_images(3, seed=1), module.sample_images(3, seed=1))
    assert not torch.equal(module.sample_images(3, seed=1), module.sample_images(3, seed=2))
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="only a variational autoencoder generates images"):
        AutoEncoder(**PLAIN).sample_images(3)


def test_a_checkpoint_loads_alone_and_predicts(tmp_path: Path):
    torch.manual_seed(0)
    module = AutoEncoder(**SMALL)
    trainer = fitted(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = AutoEncoder.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert loaded.hparams.beta == 0.02
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    for name, image in zip(("b.png", "a.png", "sub/c.png"), pixels.numpy(), strict=True):
        Image.fromarray(image).save(folder / name)
    report = loaded.predict_file(folder, tmp_path / "f.npz", batch_size=2)
    assert report == f"3 images, 8 features each -> {tmp_path / 'f.npz'}"
    found = np.load(tmp_path / "f.npz")
    assert set(found) == {"names", "features"}
    rows = dict(zip(found["names"].tolist(), found["features"], strict=True))
    module.eval()
    with torch.no_grad():
        codes = module.encode(pixels.permute(0, 3, 1, 2).float() / 255 - 0.5).mean
    for name, code in zip(("b.png", "a.png", "sub/c.png"), codes, strict=True):
        np.testing.assert_allclose(rows[name], code.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match=r"batch_size \(0\) must be at least 1"):
        loaded.predict_file(folder, tmp_path / "f.npz", batch_size=0)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"beta \(-1\) must be at least 0"):
        AutoEncoder(beta=-1)
    with pytest.raises(ValueError, match=r"num_images \(0\) must be at least 1"):
        Reconstructions(num_images=0)


def test_codes_in_float32_reach_a_decoder_in_half_precision():
    model = AutoEncoder(image_size=8).to(torch.bfloat16)
    codes = torch.randn(2, model.encoder.code_size)
    assert model.decode(codes).dtype == torch.float32
    assert model.sample_images(2).shape == (2, 3, 8, 8)
