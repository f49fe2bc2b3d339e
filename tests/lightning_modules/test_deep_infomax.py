import copy
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from callbacks import NearestNeighbors
from datamodules import DataError, ImageDataModule
from datamodules.batches import ImageBatch
from layers import (
    JSD,
    AdversarialPrior,
    AllPairs,
    BlogEncoder,
    ConcatScore,
    Derangement,
    DIMEncoder,
    DonskerVaradhan,
    DotScore,
    InfoNCE,
    Shuffle,
    remove_weight_normalization,
    untrained_copy,
)
from lightning_modules import DeepInfoMax
from readers.images import decode_image, read_image_files
from tests.conftest import TINY, script
from tests.tools import quiet_trainer

SMALL = {"encoder": partial(BlogEncoder, channels=16, code_size=8), "score": partial(ConcatScore, hidden_size=16)}
PAPER = {
    "encoder": DIMEncoder,
    "score": partial(DotScore, units=32),
    "negatives": AllPairs,
    "prior": partial(AdversarialPrior, hidden_sizes=(16,)),
    "global_weight": 0.0,
    "local_weight": 1.0,
    "prior_weight": 0.1,
}


def images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5


def data(**changes) -> ImageDataModule:
    sizes = {"sample_train_size": 150, "sample_test_size": 40, "batch_size": 16, "eval_batch_size": 64}
    return ImageDataModule(source="sample", **{**sizes, **changes})


def merged(results: list[dict]) -> dict:
    """Lightning returns one dictionary per loader."""
    return {name: value for result in results for name, value in result.items()}


def test_the_defaults_are_the_form_of_the_blog():
    module = DeepInfoMax()
    assert sum(parameter.numel() for parameter in module.parameters()) == 2_210_818
    assert module.weights == {"global": 0.5, "local": 1.5, "prior": 0.01}


def test_first_losses_are_near_those_of_an_untrained_discriminator():
    torch.manual_seed(0)
    losses = DeepInfoMax().losses(DeepInfoMax().encoder(images(32)))
    assert float(losses["global_loss"]) == pytest.approx(2 * math.log(2), abs=0.5)
    assert float(losses["local_loss"]) == pytest.approx(2 * math.log(2), abs=0.5)
    weighted = 0.5 * losses["global_loss"] + 1.5 * losses["local_loss"] + 0.01 * losses["prior_loss"]
    torch.testing.assert_close(losses["loss"], weighted)


def test_blog_losses_equal_loops_over_pairs_and_locations():
    """Both objectives written out: [z, z] against [z, z'], [z, C_ij] against [z, C'_ij]."""
    torch.manual_seed(1)
    module = DeepInfoMax(**SMALL).eval()
    output = module.encoder(images(5))
    state = torch.get_rng_state()
    losses = module.losses(output)

    torch.set_rng_state(state)
    z = output.mean + torch.exp(output.logvar / 2) * torch.randn_like(output.mean)
    softplus = torch.nn.functional.softplus
    expected = {}
    for name, score in (("global", module.global_score), ("local", module.local_score)):
        partner = torch.randperm(5)
        terms = []
        for b in range(5):
            places = [(0, 0)] if name == "global" else [(i, j) for i in range(4) for j in range(4)]
            for i, j in places:
                own = z[b] if name == "global" else output.local[b, :, i, j]
                other = z[partner[b]] if name == "global" else output.local[partner[b], :, i, j]
                positive, negative = score.mlp(torch.cat([z[b], own])), score.mlp(torch.cat([z[b], other]))
                terms.append(softplus(-positive) + softplus(negative))
        expected[name] = torch.stack(terms).mean()
    torch.testing.assert_close(losses["global_loss"], expected["global"])
    torch.testing.assert_close(losses["local_loss"], expected["local"])


@pytest.mark.parametrize("global_pair", ["code", "map"])
def test_two_views_pair_the_code_of_one_with_the_features_of_the_other(global_pair):
    """Both directions written out, code by code and place by place; infoNCE against the other images' places."""
    torch.manual_seed(1)
    slots = {"encoder": partial(DIMEncoder, code_size=8), "estimator": InfoNCE, "global_weight": 0.5}
    module = DeepInfoMax(**{**PAPER, **slots}, global_pair=global_pair, global_units=16).eval()
    first, second = module.encoder(images(4)), module.encoder(images(4).flip(3))
    losses = module.losses(first, second)
    expected = {"global": [], "local": []}
    for one, other in ((first, second), (second, first)):
        maps = other.local.flatten(2).transpose(1, 2)
        vectors = module.global_network(other.local) if global_pair == "map" else other.mean
        for name, features in (("local", maps), ("global", vectors[:, None])):
            score = getattr(module, f"{name}_score")
            code, place = score.embed_codes(one.mean), score.embed_features(features)
            for b in range(4):
                others = [torch.exp(code[b] @ c) for m in range(4) if m != b for c in place[m]]
                for c in place[b]:
                    own = torch.exp(code[b] @ c)
                    expected[name].append(-torch.log(own / (own + sum(others))))
    for name, terms in expected.items():
        torch.testing.assert_close(losses[f"{name}_loss"], torch.stack(terms).mean())
    assert losses["loss"].item() != pytest.approx(module.losses(first)["loss"].item(), rel=1e-3)


def test_a_batch_with_two_views_is_encoded_in_one_pass():
    module = DeepInfoMax(**SMALL).eval()
    output, views = module._encode(ImageBatch(images(4), torch.zeros(4), images(4).flip(3)))
    for part, alone in ((output, images(4)), (views, images(4).flip(3))):
        for values, expected in zip(part, module.encoder(alone), strict=True):
            torch.testing.assert_close(values, expected)
    plain, none = module._encode(ImageBatch(images(4), torch.zeros(4)))
    assert none is None
    torch.testing.assert_close(plain.mean, output.mean)


@pytest.mark.parametrize("term", ["global", "local", "prior"])
def test_each_term_alone_has_a_gradient_for_the_encoder(term: str):
    weights = {f"{name}_weight": float(name == term) for name in ("global", "local", "prior")}
    module = DeepInfoMax(**SMALL, **weights)
    module.losses(module.encoder(images()))["loss"].backward()
    first = module.encoder.local_layers[0][0][0].weight
    assert first.grad is not None
    assert first.grad.abs().max() > 0


@pytest.mark.parametrize("global_pair", ["code", "map"])
@pytest.mark.parametrize("estimator", [JSD, InfoNCE, DonskerVaradhan])
@pytest.mark.parametrize("negatives", [Shuffle, Derangement, AllPairs])
def test_every_combination_of_slots_gives_finite_gradients_in_bfloat16(negatives, estimator, global_pair):
    for score in (partial(ConcatScore, hidden_size=16), partial(DotScore, units=16)):
        module = DeepInfoMax(
            encoder=SMALL["encoder"],
            score=score,
            negatives=negatives,
            estimator=estimator,
            global_pair=global_pair,
            global_units=12,
        )
        with torch.autocast("cpu", torch.bfloat16):
            losses = module.losses(module.encoder(images()))
        losses["loss"].backward()
        assert losses["loss"].dtype == torch.float32
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), name


def test_terms_of_weight_zero_have_no_parameters():
    module = DeepInfoMax(**{**PAPER, "estimator": InfoNCE})
    assert module.global_score is None
    assert module.global_network is None
    assert set(module.losses(module.encoder(images()))) == {"loss", "local_loss", "local_mi", "prior_loss"}


def test_the_prior_alone_collapses_the_code():
    torch.manual_seed(0)
    module = DeepInfoMax(**SMALL, global_weight=0.0, local_weight=0.0, prior_weight=1.0)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    before = module.encoder(images()).mean.square().mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        module.losses(module.encoder(images()))["loss"].backward()
        optimizer.step()
    output = module.encoder(images())
    assert output.mean.square().mean().item() < before / 50
    assert output.logvar.abs().mean().item() < 0.1


@pytest.mark.parametrize("form", [SMALL, {**SMALL, "negatives": Derangement}])
def test_both_objectives_overfit_one_batch(form):
    torch.manual_seed(0)
    module = DeepInfoMax(**form)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        losses = module.losses(module.encoder(images(16)))
        losses["loss"].backward()
        optimizer.step()
    assert losses["global_loss"] < 1.1 < 2 * math.log(2)
    assert losses["local_loss"] < 1.1


# ---------------------------------------------------------------------------------------------------- with a Trainer


def test_adversarial_prior_trains_encoder_and_discriminator():
    module = DeepInfoMax(**{**PAPER, "estimator": InfoNCE})
    assert not module.automatic_optimization
    before = {name: value.clone() for name, value in module.named_parameters()}
    fit = quiet_trainer()
    fit.fit(module, data())
    for name, value in module.named_parameters():
        assert not torch.equal(value, before[name]), f"{name} did not move"
    assert {"train/discriminator_loss", "train/prior_loss", "train/local_mi"} <= fit.callback_metrics.keys()
    first, second = module.configure_optimizers()
    groups = [{id(p) for group in o.param_groups for p in group["params"]} for o in (first, second)]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {id(parameter) for parameter in module.parameters()}


def test_evaluation_logs_all_rows_and_does_not_change_the_encoder():
    module = DeepInfoMax(**SMALL)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    metrics = merged(quiet_trainer().test(module, data(), verbose=False))
    rows = ["", "fc/", "local/", "untrained/", "untrained/fc/", "untrained/local/", "raw_pixels/"]
    probes = ["knn_accuracy", "linear_probe_accuracy", "mlp_probe_accuracy"]
    assert set(metrics) == {f"test/{row}{probe}" for row in rows for probe in probes}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert module.state_dict().keys() == before.keys()


def test_validation_neither_depends_on_nor_changes_the_random_state():
    module = DeepInfoMax(**SMALL)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        results.append(merged(quiet_trainer().validate(module, data(), verbose=False)))
        assert torch.equal(torch.get_rng_state(), state)
    assert results[0] == results[1]
    assert {"val/loss", "val/global_mi", "val/local_mi", "val/knn_accuracy"} <= results[0].keys()


def test_images_without_classes_skip_the_probes(tmp_path: Path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(60):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    fit = quiet_trainer()
    module = DeepInfoMax(**SMALL)
    fit.fit(module, ImageDataModule(source=str(folder), batch_size=16))
    assert "val/loss" in fit.callback_metrics
    assert "val/knn_accuracy" not in fit.callback_metrics
    assert merged(fit.test(module, ImageDataModule(source=str(folder), batch_size=16), verbose=False)) == {}


def test_hyperparameters_given_from_python_load_from_a_checkpoint(tmp_path: Path):
    module = DeepInfoMax(**{**PAPER, "estimator": InfoNCE, "lr": 3e-4}).eval()
    fit = quiet_trainer(max_epochs=0)
    fit.fit(module, data())
    fit.save_checkpoint(tmp_path / "x.ckpt")
    loaded = DeepInfoMax.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
    assert isinstance(loaded.encoder, DIMEncoder)
    assert isinstance(loaded.estimator, InfoNCE)
    assert loaded.local_score.code_embedding.mix.out_features == 32
    assert loaded.hparams.lr == 3e-4
    assert torch.equal(loaded(images()), module(images()))


def test_mismatched_slots_are_refused_with_a_hint():
    with pytest.raises(ValueError, match="stochastic=true"):
        DeepInfoMax(encoder=DIMEncoder)
    with pytest.raises(ValueError, match="stochastic=false"):
        DeepInfoMax(prior=AdversarialPrior)
    with pytest.raises(ValueError, match="one of them positive"):
        DeepInfoMax(global_weight=0, local_weight=0, prior_weight=0)


# -------------------------------------------------------------------------------------------------------- predictions


@pytest.fixture
def folder_of_images(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png", "deeper/c.png"]):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_predict_file_writes_the_features_of_the_forward_pass(folder_of_images: Path, tmp_path: Path):
    module = DeepInfoMax(**SMALL).eval()
    report = module.predict_file(
        folder_of_images, tmp_path / "f.npz", query=folder_of_images / "b.png", num_neighbors=2
    )
    arrays = np.load(tmp_path / "f.npz")
    assert arrays["names"].tolist() == ["a.png", "b.png", "deeper/c.png"]
    pixels = np.stack([np.asarray(Image.open(folder_of_images / name)) for name in arrays["names"]])
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5
    torch.testing.assert_close(torch.from_numpy(arrays["features"]), module(inputs).detach(), atol=1e-5, rtol=1e-4)
    assert arrays["neighbor_names"].tolist()[0][0] == "b.png"
    assert arrays["neighbor_similarities"][0, 0] == pytest.approx(1, abs=1e-5)
    assert "b.png (1.000)" in report


@pytest.mark.parametrize(("layer", "size"), [("code", 8), ("fc", 16), ("local", 256)])
def test_predict_file_gives_the_asked_layer(folder_of_images: Path, tmp_path: Path, layer: str, size: int):
    DeepInfoMax(**SMALL).predict_file(folder_of_images, tmp_path / "f.npz", layer=layer, batch_size=2)
    assert np.load(tmp_path / "f.npz")["features"].shape == (3, size)


@pytest.mark.parametrize("name", ["f.json", "f.tsv", "f.npy"])
def test_predict_file_refuses_other_endings_before_it_reads(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=rf"output \(.*{name}\) must end in .npz or .csv or .parquet"):
        DeepInfoMax(**SMALL).predict_file(tmp_path / "no_such_folder", tmp_path / name)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predict_file_writes_tables(folder_of_images: Path, tmp_path: Path, ending: str):
    module = DeepInfoMax(**SMALL)
    module.predict_file(folder_of_images, tmp_path / "f.npz")
    expected = np.load(tmp_path / "f.npz")
    module.predict_file(folder_of_images, tmp_path / f"f.{ending}")
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[ending]
    table = read(tmp_path / f"f.{ending}")
    assert table["name"].tolist() == expected["names"].tolist()
    features = np.stack(table["features"]) if ending == "parquet" else table.iloc[:, 1:].to_numpy()
    assert np.array_equal(features.astype(np.float32), expected["features"])


def test_a_code_that_is_not_ahead_is_named():
    found = {f"test/{row}{probe}_accuracy": 0.5 for row in ("", "untrained/") for probe in ("knn", "linear_probe")}
    found |= {"test/raw_pixels/knn_accuracy": 0.4, "test/untrained/linear_probe_accuracy": 0.3, "test/fc/knn": 0.1}
    (line,) = DeepInfoMax(**SMALL).remarks(found)
    assert "not ahead of untrained (knn 0.500 <= 0.500)." in line
    assert "infomax_folder.yaml" in line
    module = DeepInfoMax(**SMALL)
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(views=2))
    assert "infomax_folder.yaml" not in module.remarks(found)[0]
    assert DeepInfoMax(**SMALL).remarks(found | {"test/knn_accuracy": 0.6}) == []
    assert DeepInfoMax(**SMALL).remarks({"test/knn_accuracy": 0.1}) == []  # without baselines
    assert "no classes" in DeepInfoMax(**SMALL).remarks({})[0]


@pytest.mark.filterwarnings("ignore")
def test_validations_draw_the_curves_of_the_asked_probes():
    module = DeepInfoMax(**SMALL, val_probes=["knn", "linear_probe"])
    trainer = quiet_trainer(limit_train_batches=1)
    trainer.fit(module, data())
    assert {"val/knn_accuracy", "val/linear_probe_accuracy"} <= trainer.callback_metrics.keys()
    assert "val/mlp_probe_accuracy" not in trainer.callback_metrics


def test_predict_file_names_a_corrupt_image(folder_of_images: Path, tmp_path: Path):
    (folder_of_images / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png"):
        DeepInfoMax(**SMALL).predict_file(folder_of_images, tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(folder_of_images: Path, tmp_path: Path, channels: int):
    module = DeepInfoMax(**SMALL, channels=channels, probes=["knn"])
    trainer = quiet_trainer(NearestNeighbors(3, 3), max_epochs=1)
    small = data(channels=channels, sample_train_size=40, sample_test_size=10)
    trainer.fit(module, datamodule=small)
    trainer.test(module, datamodule=small, verbose=False)
    module.predict_file(folder_of_images, tmp_path / "f.npz")
    pixels = [decode_image("", folder_of_images / name, 32, channels) for name in ("a.png", "b.png", "deeper/c.png")]
    inputs = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5
    found = torch.from_numpy(np.load(tmp_path / "f.npz")["features"])
    torch.testing.assert_close(found, module(inputs).detach(), atol=1e-5, rtol=1e-4)


def test_batches_of_files_are_normalised_to_the_pixel_range(tmp_path: Path):
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(tmp_path / "white.png")
    ((names, pixels),) = read_image_files(tmp_path, 32, 4)
    batch = ImageBatch.from_pixels(pixels, (-1.0, 1.0))
    assert names == ["white.png"]
    assert batch.images.shape == (1, 3, 32, 32)
    assert torch.all(batch.images == 1.0)


# ------------------------------------------------------------------------------------------------ normalised weights

NORMALISED = {**PAPER, "weight_normalization": {"local_score": "spectral", "prior": "spectral_persistent"}}


def test_a_checkpoint_with_normalised_discriminators_loads_alone(tmp_path):
    model = DeepInfoMax(**NORMALISED, probes=["knn"], baselines=False)
    assert sum("original" in name for name, _ in model.prior.named_parameters()) == 2
    fit = quiet_trainer(limit_train_batches=3, limit_val_batches=1)
    fit.fit(model, datamodule=data())
    fit.save_checkpoint(tmp_path / "x.ckpt")
    loaded = DeepInfoMax.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True).eval()
    output = model.eval().encoder(images())
    for name, value in model.losses(output).items():
        assert torch.equal(loaded.losses(loaded.encoder(images()))[name], value), name
    for layer in (loaded.local_score.code_embedding.mix, loaded.prior.discriminator[0]):
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=0.15)
    assert loaded.local_score.code_embedding.norm.weight.norm().item() == pytest.approx(1, abs=1e-5)
    # From a plain model's weights, and back to a plain model.
    plain = DeepInfoMax(**PAPER)
    loaded.load_state_dict(plain.state_dict())
    again = DeepInfoMax(**PAPER)
    again.load_state_dict(remove_weight_normalization(copy.deepcopy(model)).state_dict())
    for name, value in model.losses(output).items():
        assert torch.equal(again.eval().losses(output)[name], value), name


def test_the_untrained_baseline_of_a_normalised_encoder_is_untrained():
    encoders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        encoders.append(DeepInfoMax(**SMALL, weight_normalization={"encoder": "spectral"}).encoder)
    outputs = [untrained_copy(encoder)(images()).mean for encoder in encoders]
    assert torch.equal(*outputs)
    assert not torch.allclose(outputs[0], encoders[0].eval()(images()).mean)


def test_a_pattern_that_matches_nothing_is_one_line(tmp_path):
    wrong = "--model.weight_normalization={local_scor.mixed: spectral}"
    result = script("train", *TINY, wrong, cwd=tmp_path, check=False)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert (
        "weight_normalization: pattern 'local_scor.mixed' matches no parameter; the nearest one is 'local_score" in line
    )
