"""Hugging Face encoders, with tiny models made by the test."""

import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from layers import HuggingFaceEncoder
from layers.triples.hugging_face_encoder import token_of_characters
from lightning_modules import TripleExtractor
from tests.conftest import ROOT, make_tiny_bert

pytest.importorskip("transformers")
VOCABULARY = ["<pad>", "<unk>", "中", "国", "z"]


def inputs(texts: list[str]) -> tuple[torch.Tensor, None, torch.Tensor, list[str]]:
    """Characters, all unknown to the data's vocabulary, and the texts."""
    mask = torch.zeros(len(texts), max(map(len, texts)), 1)
    for row, text in enumerate(texts):
        mask[row, : len(text)] = 1
    return mask.squeeze(-1).long(), None, mask, texts


def test_characters_are_the_models_own_tokens_between_its_special_ones(tmp_path: Path):
    encoder = HuggingFaceEncoder(VOCABULARY, 0, 38, model=make_tiny_bert(tmp_path, ["中", "国"])).eval()
    characters = torch.tensor([[2, 3, 4, 2], [3, 2, 0, 0]])
    mask = (characters > 0).float().unsqueeze(-1)
    output = encoder(characters, None, mask)
    # [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, 中 5, 国 6
    for row, tokens in enumerate([[2, 5, 6, 1, 5, 3], [2, 6, 5, 3]]):
        expected = encoder.network(input_ids=torch.tensor([tokens])).last_hidden_state[0, 1:-1]
        torch.testing.assert_close(output[row, : len(expected)], expected, atol=1e-5, rtol=1e-5)
    assert not output[1, 2:].any()


def test_its_vocabulary_is_the_models_not_the_datas(tmp_path: Path):
    encoder = HuggingFaceEncoder(["<pad>", "<unk>"], 0, 38, model=make_tiny_bert(tmp_path, ["中", "国"])).eval()
    output = encoder(*inputs(["国中", "中"]))
    expected = encoder.network(input_ids=torch.tensor([[2, 6, 5, 3]])).last_hidden_state[0, 1:-1]
    torch.testing.assert_close(output[0], expected, atol=1e-5, rtol=1e-5)


def test_word_pieces_and_their_offsets(tmp_path: Path):
    folder = make_tiny_bert(tmp_path, ["hai", "##tian", "bob", "中", "left"])
    encoder = HuggingFaceEncoder(VOCABULARY, 0, 38, model=folder).eval()
    with torch.no_grad():
        encoder.edges.weight.copy_(torch.arange(4.0)[:, None].expand(4, 16))
    text = "Haitian 中Bób"  # lower case and accents are the tokenizer's business
    output = encoder(*inputs([text]))[0]
    # [CLS] hai ##tian 中 bob [SEP]
    tokens = encoder.network(input_ids=torch.tensor([[2, 5, 6, 8, 7, 3]])).last_hidden_state[0]
    pieces = [1, 1, 1, 2, 2, 2, 2, None, 3, 4, 4, 4]
    ends = [1, 0, 2, 1, 0, 0, 2, None, 3, 1, 0, 2]  # first 1, last 2
    for place, (piece, end) in enumerate(zip(pieces, ends, strict=True)):
        expected = torch.zeros(16) if piece is None else tokens[piece] + end
        torch.testing.assert_close(output[place], expected, atol=1e-5, rtol=1e-5)


def test_offsets_with_blanks_and_several_tokens_of_a_character():
    # A leading blank belongs to the token, as in GPT-2; an emoji is two tokens.
    places, edges = token_of_characters(["a bc😀"], [[(0, 0), (0, 1), (1, 4), (4, 5), (4, 5), (0, 0)]], 6)
    assert places.tolist() == [[1, -1, 2, 2, 3, -1]]
    assert edges.tolist() == [[3, 0, 1, 2, 3, 0]]


def test_a_checkpoint_loads_where_the_folder_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "bert"
    folder.mkdir()
    make_tiny_bert(folder, ["中", "国", "hai", "##tian"])
    data = {"characters": ["<pad>", "<unk>", "中"], "max_length": 30}
    from functools import partial

    torch.manual_seed(0)
    model = TripleExtractor(encoder=partial(HuggingFaceEncoder, model=str(folder)), **data).eval()
    from tests.tools import quiet_trainer

    saving = quiet_trainer()
    saving.strategy.connect(model)
    saving.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    shutil.rmtree(folder)
    loaded = TripleExtractor.load(tmp_path / "model.ckpt")
    texts = ["中国Haitian", "国"]
    batch_texts = inputs(texts)
    torch.testing.assert_close(loaded.encoder(*batch_texts), model.encoder(*batch_texts), rtol=0, atol=0)
    assert loaded.extract([*texts, ""])[2] == []
    # Once more: a checkpoint of the loaded model.
    assert json.dumps(loaded.hparams.encoder["init_args"]["files"]) == json.dumps(
        model.hparams.encoder["init_args"]["files"]
    )


def test_a_run_is_tested_and_resumed_where_the_folder_is_not(tmp_path: Path):
    make_tiny_bert(tmp_path, ["中", "国"])
    encoder = HuggingFaceEncoder(["<pad>", "<unk>"], 0, 30, str(tmp_path))
    from experiment.cli import ExperimentCLI

    arguments = ["--model.encoder.model=gone", "--data.source=sample", "--data.sample_train_size=30"]
    arguments += ["--data.sample_test_size=5", "--data.max_length=30", "--trainer.logger=false"]
    cli = ExperimentCLI(["-c", str(ROOT / "configs/triples_ske_bert.yaml"), *arguments])
    saved = {"class_path": "layers.triples.HuggingFaceEncoder", "init_args": encoder.portable_arguments()}
    cli.build({"encoder": saved})
    assert cli.model.encoder.tokenizer.get_vocab() == encoder.tokenizer.get_vocab()
    assert cli.model.hparams.encoder["init_args"]["files"].keys() == saved["init_args"]["files"].keys()
    assert cli.plain_config()["model"]["init_args"]["encoder"]["init_args"]["files"] is None


def test_invalid_arguments_are_refused_in_one_line(tmp_path: Path):
    folder = make_tiny_bert(tmp_path, ["中"])
    with pytest.raises(ValueError, match=r"reads at most 38 characters: set data\.max_length=38"):
        HuggingFaceEncoder(VOCABULARY, 0, 39, model=folder)
    with pytest.raises(ValueError, match="no word vectors"):
        HuggingFaceEncoder(VOCABULARY, 8, 38, model=folder)
    with pytest.raises(ValueError, match=r"encoder.model: .*nowhere cannot be loaded .*give a folder") as error:
        HuggingFaceEncoder(VOCABULARY, 0, 38, model=str(tmp_path / "nowhere"))
    assert "\n" not in str(error.value)


def test_without_transformers_the_version_of_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (wanted,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["transformers"]
    with pytest.raises(ImportError, match=wanted):
        HuggingFaceEncoder(VOCABULARY, 0, 38)
