from itertools import product

import pytest
import torch

from datamodules import DataError, LogicalInferenceDataModule
from datamodules.samples.formulas import make_pairs
from readers.logic import RELATIONS, VOCABULARY

VARIABLES = "abcdef"


def written(formula):
    return " ".join(VOCABULARY[token] for token in formula)


def true_in(formula):
    """The assignments for which a formula, which is also a Python expression, is true."""
    code = compile(formula, "formula", "eval")
    return {
        values
        for values in product((False, True), repeat=6)
        if eval(code, {}, dict(zip(VARIABLES, values, strict=True)))
    }


def relation(first, second):
    """The seven relations, distinguished by four questions and equality."""
    x, y, everything = true_in(first), true_in(second), set(product((False, True), repeat=6))
    assert x not in (set(), everything)
    assert y not in (set(), everything)
    if x == y:
        return "="
    answers = (x <= y, y <= x, not x & y, x | y == everything)
    return {
        (True, False, False, False): "<",
        (False, True, False, False): ">",
        (False, False, True, True): "^",
        (False, False, True, False): "|",
        (False, False, False, True): "v",
        (False, False, False, False): "#",
    }[answers]


def small(**options):
    return LogicalInferenceDataModule(**{"sample_train_size": 600, "sample_test_size": 240} | options)


def test_labels_by_truth_tables():
    pairs = make_pairs(210, range(13), 5, test=True)
    assert {pair.label for pair in pairs} == set(range(7))
    for pair in pairs:
        assert RELATIONS[pair.label] == relation(written(pair.premise), written(pair.hypothesis))
        counts = [
            sum(word in ("not", "and", "or") for word in written(formula).split())
            for formula in (pair.premise, pair.hypothesis)
        ]
        assert pair.operations == max(counts)


def test_every_relation_and_every_length_has_its_share():
    pairs = make_pairs(2100, range(7), 0, test=False)
    assert len(pairs) == len({pair[:2] for pair in pairs}) == 2100
    labels = [pair.label for pair in pairs]
    assert [labels.count(label) for label in range(7)] == [300] * 7
    operations = [pair.operations for pair in pairs]
    assert all(310 < operations.count(number) < 400 for number in range(2, 7))
    assert min(operations) == 0
    variables = {len(set(written(pair.premise + pair.hypothesis).split()) & set(VARIABLES)) for pair in pairs}
    assert max(variables) == 4
    used = {word for pair in pairs for word in written(pair.premise).split()}
    assert used == set(VOCABULARY) - {"<pad>"}


def test_no_pair_is_in_training_and_test():
    train = {pair[:2] for pair in make_pairs(3000, range(3), 0, test=False)}
    test = {pair[:2] for pair in make_pairs(1000, range(1, 3), 0, test=True)}
    assert len(train) > 2900
    assert len(test) > 900
    assert not train & test


def test_the_sample_depends_on_its_seed_alone():
    assert small().describe() == small().describe()
    assert small().describe()["fingerprint"] != small(seed=1).describe()["fingerprint"]


def test_batches():
    data = small(batch_size=50)
    assert (data.vocab_size, data.num_classes) == (len(data.vocabulary), 7) == (12, 7)
    about = data.describe()
    assert (about["train_pairs"], about["val_pairs"], about["test_pairs"]) == (540, 60, 240)
    assert set(about["test_operations"]) == set(range(1, 13))
    (full,) = {len(batch.labels) for batch in data.train_dataloader()}
    assert full == 50
    for batch in data.train_dataloader():
        assert int(batch.operations.max()) <= 6
    seen = 0
    for batch in data.test_dataloader():
        assert all(tensor.dtype == torch.int64 for tensor in batch)
        for formulas, lengths in ((batch.premise, batch.premise_lengths), (batch.hypothesis, batch.hypothesis_lengths)):
            assert formulas.shape == (len(batch.labels), int(lengths.max()))
            assert torch.equal((formulas > 0).sum(1), lengths)
        first = [data.vocabulary[token] for token in batch.premise[0].tolist() if token]
        second = [data.vocabulary[token] for token in batch.hypothesis[0].tolist() if token]
        assert data.classes[batch.labels[0]] == relation(" ".join(first), " ".join(second))
        seen += len(batch.labels)
    assert seen == 240


def test_few_pairs_are_one_batch():
    data = small(sample_train_size=60, batch_size=128)
    assert [len(batch.labels) for batch in data.train_dataloader()] == [54]


BOWMAN = {
    "train0": "#\ta\tb\n=\tc\tc\n",
    "train2": "^\t( not a )\ta\n<\t(a and b)\t( a or ( not c ) )\n",
    "train7": "#\t" + "( not " * 7 + "a" + " )" * 7 + "\tb\n",
    "test3": "|\t( a and b )\t( not ( a or b ) )\n",
}


def test_files_as_published(tmp_path):
    for name, text in BOWMAN.items():
        (tmp_path / name).write_text(text)
    data = small(source=str(tmp_path), val_fraction=0.25, batch_size=3)
    about = data.describe()
    sizes = (about["train_pairs"], about["val_pairs"], about["test_pairs"])
    assert sizes == (3, 1, 1)  # a pair with 7 operations is left out
    (batch,) = data.test_dataloader()
    assert [data.vocabulary[token] for token in batch.premise[0]] == "( a and b )".split()  # noqa: SIM905
    assert data.classes[batch.labels[0]] == "|"
    assert batch.operations.tolist() == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#\ta\tb\n?\ta\tb\n", r"train0, line 2: expected one of = < > \^ \| v #, a TAB"),
        ("# a b\n", "train0, line 1: expected one of"),
        ("#\ta\tg\n", "train0, line 1: the word g; the vocabulary is"),
        ("#\ta\t\n", "train0, line 1: "),
        ("#\ta\tb\n", "1 training and 1 test pairs are too few"),
    ],
)
def test_bad_files_get_one_line(tmp_path, text, message):
    for name in ("train0", "test3"):
        (tmp_path / name).write_text(BOWMAN[name])
    (tmp_path / "train0").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        small(source=str(tmp_path)).setup()
    assert "\n" not in str(caught.value)


def test_other_sources_are_rejected(tmp_path):
    with pytest.raises(DataError, match="hub has no logical inference data; give sample"):
        small(source="hub")
    with pytest.raises(DataError, match=r"has no file train\*"):
        small(source=str(tmp_path)).setup()
    with pytest.raises(ValueError, match="val_fraction"):
        small(val_fraction=1.0)
    with pytest.raises(ValueError, match="max_operations"):
        small(train_max_operations=0)
