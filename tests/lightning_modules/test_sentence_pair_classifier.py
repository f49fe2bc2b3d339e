import pytest
import pytorch_lightning as pl
import torch

from datamodules import LogicalInferenceDataModule
from datamodules.batches import SentencePairBatch
from layers import LSTM, ONLSTM
from lightning_modules import SentencePairClassifier


def data(**changes) -> LogicalInferenceDataModule:
    sizes = {"sample_train_size": 200, "sample_test_size": 120, "batch_size": 16, "eval_batch_size": 32}
    return LogicalInferenceDataModule(source="sample", **{**sizes, **changes})


def model(data: LogicalInferenceDataModule, **changes) -> SentencePairClassifier:
    torch.manual_seed(0)
    sizes = {"embedding_size": 12, "hidden_size": 20, "units": 16}
    return SentencePairClassifier(vocabulary=data.vocabulary, classes=data.classes, **{**sizes, **changes})


def trainer(folder, **arguments) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator="cpu", logger=False, default_root_dir=folder, **quiet, **arguments)


@pytest.mark.parametrize("cell", [ONLSTM, LSTM])
def test_the_logits_are_those_of_each_pair_alone(cell):
    pairs = data()
    module = model(pairs, cell=cell).eval()
    batch: SentencePairBatch = next(iter(pairs.train_dataloader()))
    logits = module(batch)
    for row in range(len(batch.labels)):
        vectors = []
        for tokens, lengths in ((batch.premise, batch.premise_lengths), (batch.hypothesis, batch.hypothesis_lengths)):
            sentence = tokens[row, : lengths[row]]
            output, _, _ = module.cell(module.embedding(sentence)[:, None])
            vectors.append(output[-1, 0])
        first, second = vectors
        features = torch.cat([first, second, first * second, (first - second).abs()])
        torch.testing.assert_close(logits[row], module.head(features), rtol=1e-4, atol=1e-5)


def test_accuracies_by_operations_are_those_of_a_loop(tmp_path):
    pairs = data()
    module = model(pairs)
    (tested,) = trainer(tmp_path).test(module, pairs, verbose=False)
    module.eval()
    right, all_pairs = {}, {}
    for batch in pairs.test_dataloader():
        with torch.no_grad():
            guesses = module(batch).argmax(1)
        for guess, label, operations in zip(guesses, batch.labels, batch.operations.tolist(), strict=True):
            right[operations] = right.get(operations, 0) + int(guess == label)
            all_pairs[operations] = all_pairs.get(operations, 0) + 1
    expected = {f"test/accuracy/operations_{k}": right[k] / all_pairs[k] for k in all_pairs}
    expected["test/accuracy"] = sum(right.values()) / sum(all_pairs.values())
    long = [k for k in all_pairs if k >= 7]
    expected["test/accuracy_7_and_more"] = sum(right[k] for k in long) / sum(all_pairs[k] for k in long)
    assert long
    assert tested == pytest.approx(expected)
