import pytest
import torch

from datamodules import LogicalInferenceDataModule
from datamodules.batches import SentencePairBatch
from layers import LSTM, ONLSTM
from lightning_modules import SentencePairClassifier
from tests.tools import quiet_trainer


def data(**changes) -> LogicalInferenceDataModule:
    sizes = {"sample_train_size": 200, "sample_test_size": 120, "batch_size": 16, "eval_batch_size": 32}
    return LogicalInferenceDataModule(source="sample", **{**sizes, **changes})


def model(data: LogicalInferenceDataModule, **changes) -> SentencePairClassifier:
    torch.manual_seed(0)
    sizes = {"embedding_size": 12, "hidden_size": 20, "units": 16}
    return SentencePairClassifier(vocabulary=data.vocabulary, classes=data.classes, **{**sizes, **changes})


@pytest.mark.parametrize("cell", [ONLSTM, LSTM])
def test_logits_equal_those_of_each_pair_alone(cell):
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


def test_accuracies_by_operations_equal_those_of_a_loop():
    pairs = data()
    module = model(pairs)
    (tested,) = quiet_trainer().test(module, pairs, verbose=False)
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


def test_predictions_for_a_file_equal_those_of_each_pair_alone(tmp_path):
    pairs = data(sample_test_size=30)
    module = model(pairs)
    with torch.no_grad():
        module.head[-1].weight.normal_()  # so that the relations differ
    words = ["", *pairs.vocabulary[1:]]
    asked, expected = [], []
    pairs.setup("test")
    table = pairs.splits["test"]
    for row in range(len(table)):
        batch = table.batch(torch.tensor([row]))
        both = (batch.premise[0], batch.hypothesis[0])
        premise, hypothesis = (" ".join(words[i] for i in tokens.tolist()) for tokens in both)
        asked.append(f"{premise}\t{hypothesis}")
        module.eval()
        with torch.no_grad():
            probabilities = module(batch)[0].softmax(0)
        expected.append((pairs.classes[int(probabilities.argmax())], float(probabilities.max()), premise, hypothesis))
    asked[3] = f"=\t{asked[3]}"
    (tmp_path / "asked.txt").write_text("\n\n".join(asked))
    module.train()
    report = module.predict_file(tmp_path / "asked.txt", tmp_path / "answers.tsv", batch_size=7)
    assert report == f"relations of 30 pairs -> {tmp_path / 'answers.tsv'}"
    written = (tmp_path / "answers.tsv").read_text().splitlines()
    assert written[1::2] == [""] * 29  # lines stay aligned
    answers = [line.split("\t") for line in written[::2]]
    assert len({relation for relation, *_ in answers}) > 1
    for (relation, probability, *formulas), (right, share, *others) in zip(answers, expected, strict=True):
        assert (relation, formulas) == (right, others)
        assert float(probability) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("( a and b )", r"asked.txt, line 2: expected a formula, a TAB, a formula, found 1"),
        ("a\tg", "asked.txt, line 2: the word g; "),
        ("=\ta\tb )", "asked.txt, line 2: the brackets of a formula don't match"),
    ],
)
def test_a_malformed_line_is_refused_and_the_old_output_kept(tmp_path, line, message):
    pairs = data()
    (tmp_path / "asked.txt").write_text(f"a\tb\n{line}\n")
    (tmp_path / "answers.tsv").write_text("earlier")
    with pytest.raises(ValueError, match=message):
        model(pairs).predict_file(tmp_path / "asked.txt", tmp_path / "answers.tsv")
    assert (tmp_path / "answers.tsv").read_text() == "earlier"
