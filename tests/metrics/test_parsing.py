import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import ParseF1
from metrics.trees import balanced, left_branching, random_tree, right_branching, tree_from_distances, tree_spans
from readers.text.treebank import read_treebank
from tests.conftest import SHARED

TREEBANK = SHARED / "treebank" / "treebank.zip"


def score(trees, gold, lengths):
    metric = ParseF1()
    metric.update(trees, gold, lengths)
    return {name: value.item() for name, value in metric.compute().items()}


def test_one_sentence_by_hand():
    gold = [(0, 6, "S"), (0, 2, "NP"), (2, 6, "VP"), (3, 6, "S+VP"), (4, 6, "NP")]
    predicted = [(0, 6), (1, 6), (2, 6), (3, 6), (3, 5)]
    result = score([predicted], [gold], [6])
    # Without the root: 2 of 4 predicted are right, 2 of 4 gold ones found; with it, 3 of 5 and 3 of 5.
    assert result["sentence_f1_no_root"] == pytest.approx(50, abs=1e-5)
    assert result["corpus_f1_evalb"] == pytest.approx(60)
    assert result["sentence_f1_no_root_wsj10"] == result["sentence_f1_no_root"]
    recalls = {name: value for name, value in result.items() if name.startswith("recall")}
    assert recalls == {"recall/NP": 0, "recall/VP": 100, "recall/S": 100}


def test_spans_may_be_a_tensor():
    gold = [(0, 4, "S"), (0, 2, "NP")]
    assert score([torch.tensor([(0, 4), (0, 2)])], [gold], torch.tensor([4])) == score([[(0, 4), (0, 2)]], [gold], [4])


def test_a_sentence_without_inner_spans():
    """Nothing to find: recall 1, and precision 1 only if nothing is predicted."""
    assert score([[(0, 2)]], [[(0, 2, "S")]], [2])["sentence_f1_no_root"] == pytest.approx(100, abs=1e-5)
    result = score([[(0, 3), (1, 3)]], [[(0, 3, "S")]], [3])
    assert result["sentence_f1_no_root"] == 0
    assert result["corpus_f1_evalb"] == pytest.approx(200 / 3)
    single = score([[]], [[]], [1])
    assert single["sentence_f1_no_root"] == pytest.approx(100, abs=1e-5)
    assert "corpus_f1_evalb" not in single


def test_the_mean_over_sentences_differs_from_the_corpus_count():
    long = [(0, 12, "S"), *((start, 12, "X") for start in range(1, 11))]
    short = [(0, 3, "S"), (0, 2, "NP")]
    guess = [tree_spans(right_branching(12)), tree_spans(right_branching(3))]
    result = score(guess, [long, short], [12, 3])
    assert result["sentence_f1_no_root"] == pytest.approx(50, abs=1e-5)
    assert result["corpus_f1_evalb"] == pytest.approx(100 * 12 / 13)
    assert result["sentence_f1_no_root_wsj10"] == 0
    assert result["corpus_f1_evalb_wsj10"] == pytest.approx(50)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=14), st.randoms()), min_size=1, max_size=6))
def test_against_plain_counting(sentences):
    predicted, gold, lengths, f1s, counts = [], [], [], [], torch.zeros(3)
    for distances, random in sentences:
        size = len(distances)
        ours = tree_spans(tree_from_distances(distances))
        theirs = tree_spans(tree_from_distances([random.random() for _ in distances]))
        theirs = [span for span in theirs if span == (0, size) or random.random() < 0.7]
        predicted.append(ours)
        gold.append([(*span, "X") for span in theirs])
        lengths.append(size)
        inner_ours, inner_theirs = set(ours) - {(0, size)}, set(theirs) - {(0, size)}
        right = len(inner_ours & inner_theirs)
        total = len(inner_ours) + len(inner_theirs)
        f1s.append(2 * right / total if total else 1.0)  # F1 = 2 right / (predicted + gold)
        counts += torch.tensor([len(set(ours) & set(theirs)), len(ours), len(theirs)])
    result = score(predicted, gold, torch.tensor(lengths))
    assert result["sentence_f1_no_root"] == pytest.approx(100 * sum(f1s) / len(f1s), abs=1e-4)
    if counts[1] + counts[2]:
        assert result["corpus_f1_evalb"] == pytest.approx(200 * float(counts[0] / (counts[1] + counts[2])), abs=1e-4)


def test_processes_with_uneven_shares_add_up():
    """The states of two processes, summed as torchmetrics does, equal the state of one with all sentences."""
    sentences = [(right_branching(n), [(0, n, "S"), (n - 2, n, "NP")], n) for n in (3, 4, 7, 12, 15)]
    whole, parts = ParseF1(), [ParseF1(), ParseF1()]
    for number, (tree, gold, length) in enumerate(sentences):
        for metric in (whole, parts[number == 0]):
            metric.update([tree_spans(tree)], [gold], [length])
    for name, reduction in parts[0]._reductions.items():
        summed = reduction(torch.stack([getattr(part, name) for part in parts]))
        setattr(parts[0], name, summed)
    expected = whole.compute()
    assert {name: value.item() for name, value in parts[0].compute().items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}
    )
    whole.reset()
    whole.update([], [], [])
    assert whole.compute() == {}


def test_each_sentence_needs_all_three():
    with pytest.raises(ValueError, match="1 predictions, 1 gold trees and 2 lengths"):
        ParseF1().update([[]], [[]], [3, 4])


# The treebank sample of NLTK; scores computed by other programs, see the file's own description.
TABLE = {
    "right": (right_branching, 39.91, 58.60, 35.75, 39.41),
    "left": (left_branching, 8.63, 19.19, 6.36, 11.69),
    "balanced": (balanced, 21.31, 35.19, 18.56, 23.19),
}


def corpus_f1_no_root(predicted, gold, lengths):
    """The third column of the table: corpus_f1_evalb without whole-sentence spans."""
    both = total = 0
    for ours, theirs, size in zip(predicted, gold, lengths, strict=True):
        inner_ours = set(ours) - {(0, size)}
        inner_theirs = {span[:2] for span in theirs} - {(0, size)}
        both += len(inner_ours & inner_theirs)
        total += len(inner_ours) + len(inner_theirs)
    return 200 * both / total


@pytest.fixture(scope="module")
def sentences():
    if not TREEBANK.is_file():
        pytest.skip("no ../shared/data/treebank")
    return read_treebank(TREEBANK)


@pytest.mark.parametrize("name", TABLE)
def test_baselines_on_the_treebank_sample(sentences, name):
    make, sentence_f1, short_f1, corpus_no_root, corpus_f1 = TABLE[name]
    gold = [sentence.spans for sentence in sentences]
    lengths = [len(sentence.words) for sentence in sentences]
    predicted = [tree_spans(make(length)) for length in lengths]
    result = score(predicted, gold, lengths)
    assert round(result["sentence_f1_no_root"], 2) == sentence_f1
    assert round(result["sentence_f1_no_root_wsj10"], 2) == short_f1
    assert round(result["corpus_f1_evalb"], 2) == corpus_f1
    assert round(corpus_f1_no_root(predicted, gold, lengths), 2) == corpus_no_root


def test_random_and_best_trees_on_the_treebank_sample(sentences):
    gold = [sentence.spans for sentence in sentences]
    lengths = [len(sentence.words) for sentence in sentences]
    generator = torch.Generator().manual_seed(0)
    result = score([tree_spans(random_tree(length, generator)) for length in lengths], gold, lengths)
    assert abs(result["sentence_f1_no_root"] - 18.32) < 1
    assert abs(result["sentence_f1_no_root_wsj10"] - 33.03) < 1
    # The best binary tree has every gold span; its others match nothing, so any spans outside will do.
    best = []
    for spans, length in zip(gold, lengths, strict=True):
        extra = [(length + place, length + place + 2) for place in range(length - 1 - len(spans))]
        best.append([span[:2] for span in spans] + extra)
    assert abs(score(best, gold, lengths)["sentence_f1_no_root"] - 84.35) < 0.1
