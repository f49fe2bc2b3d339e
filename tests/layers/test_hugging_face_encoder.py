"""Hugging Face encoders, with a tiny model made by the test."""

from pathlib import Path

import pytest
import torch

from layers import HuggingFaceEncoder
from tests.conftest import make_tiny_bert

pytest.importorskip("transformers")
VOCABULARY = ["<pad>", "<unk>", "中", "国", "z"]


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


def test_invalid_arguments_are_refused_in_one_line(tmp_path: Path):
    folder = make_tiny_bert(tmp_path, ["中"])
    with pytest.raises(ValueError, match=r"reads at most 38 characters: set data\.max_length=38"):
        HuggingFaceEncoder(VOCABULARY, 0, 39, model=folder)
    with pytest.raises(ValueError, match="no word vectors"):
        HuggingFaceEncoder(VOCABULARY, 8, 38, model=folder)
    with pytest.raises(ValueError, match=r"encoder.model: .*nowhere cannot be loaded .*give a folder") as error:
        HuggingFaceEncoder(VOCABULARY, 0, 38, model=str(tmp_path / "nowhere"))
    assert "\n" not in str(error.value)
