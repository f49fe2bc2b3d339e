"""The triple extractor: its loss against a loop, decoding of gold labels, batches against single sentences."""

import json
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.triples import Reference
from callbacks import AveragedWeights, PiecewiseLinearLR
from datamodules import TripleDataModule
from datamodules.batches import TripleBatch
from layers import DGCNN, BiLSTM
from lightning_modules import TripleExtractor
from lightning_modules.triple_decoding import Encoded, Thresholds
from tests.conftest import ROOT, SHARED, script
from tests.tools import equal, quiet_trainer, start_and_kill

SKE = SHARED / "ske"
needs_ske = pytest.mark.skipif(not SKE.is_dir(), reason="no ../shared/data/ske")


@pytest.fixture(scope="module")
def sample() -> TripleDataModule:
    data = TripleDataModule(
        source="sample", batch_size=16, eval_batch_size=16, sample_train_size=200, sample_test_size=40
    )
    data.setup("fit")
    return data


def build(data: TripleDataModule, **arguments) -> TripleExtractor:
    torch.manual_seed(0)
    links = {name: getattr(data, name) for name in TripleExtractor.data_links}
    return TripleExtractor(**{**links, **arguments}).eval()


@torch.no_grad()
def loose_thresholds(model: TripleExtractor, batch: TripleBatch) -> Thresholds:
    """Thresholds at which an untrained model finds some triples, but not all possible ones."""
    encoded = model.encode(batch)
    real = batch.characters > 0
    starts, ends = encoded.subjects.exp()[real].unbind(-1)
    rows = torch.arange(len(batch.characters))
    objects = model.objects(encoded, batch.candidates, rows, batch.spans.clamp(min=0)).exp()[real].flatten(0, 1)
    limits = starts.quantile(0.9), ends.quantile(0.2), objects[:, 0].quantile(0.98), objects[:, 1].quantile(0.2)
    return Thresholds(*(float(limit) for limit in limits))


def one_sentence(batch: TripleBatch, row: int) -> TripleBatch:
    """One row of a batch as its own batch, without padding."""
    length = int((batch.characters[row] > 0).sum())

    def of_row(part: Tensor) -> Tensor:
        part = part[part[:, 0] == row].clone()
        part[:, 0] = 0
        return part

    sentence = int(batch.sentences[row])
    return TripleBatch(
        batch.characters[row : row + 1, :length],
        batch.words[row : row + 1, :length],
        of_row(batch.subjects),
        batch.spans[row : row + 1],
        of_row(batch.objects),
        of_row(batch.candidates),
        torch.zeros(1, dtype=torch.int64),
        batch.offsets[row : row + 1],
        (batch.texts[sentence],),
        (batch.triples[sentence],),
    )


def gold_decoding(model: TripleExtractor, batch: TripleBatch, monkeypatch: pytest.MonkeyPatch) -> list[set]:
    """The triples decoded from probabilities that state exactly the labels."""
    certain = torch.tensor(0.99).log()
    never = torch.tensor(0.01).log()
    subjects = torch.full((*batch.characters.shape, 2), never.item())
    row, start, end = batch.subjects.unbind(1)
    subjects[row, start, 0] = subjects[row, end, 1] = certain

    def objects(encoded: Encoded, candidates: Tensor, rows: Tensor, spans: Tensor) -> Tensor:
        log_p = torch.full((len(rows), batch.characters.shape[1], len(model.predicates), 2), never.item())
        for number, (row, span) in enumerate(zip(rows.tolist(), spans.tolist(), strict=True)):
            text = batch.texts[row]
            subject = text[span[0] : span[1] + 1]
            for gold_subject, predicate, gold_object in batch.triples[row]:
                place = text.find(gold_object)
                if gold_subject == subject and place >= 0:
                    column = model.predicates.index(predicate)
                    log_p[number, place, column, 0] = certain
                    log_p[number, place + len(gold_object) - 1, column, 1] = certain
        return log_p

    monkeypatch.setattr(model, "objects", objects)
    mask = (batch.characters > 0).unsqueeze(-1).float()
    encoded = Encoded(torch.empty(0), mask, subjects, *[torch.empty(0)] * 3)
    (found,) = model.decode(batch, encoded, [Thresholds(0.5, 0.4, 0.5, 0.4)])
    return [{triple[:3] for triple in triples} for triples in found]


def ambiguous(text: str, triples: set[tuple[str, str, str]]) -> bool:
    """Whether some span starts where another does, or contains another's end: then starts and ends alone don't
    determine the spans. Subjects are one class, objects one per subject and predicate."""
    classes: dict[tuple, set[tuple[int, int]]] = {}
    for subject, predicate, object in triples:
        for key, entity in (((), subject), ((subject, predicate), object)):
            start = text.find(entity)
            classes.setdefault(key, set()).add((start, start + len(entity)))
    return any(
        a != b and (a[0] == b[0] or a[0] < b[1] < a[1]) for spans in classes.values() for a in spans for b in spans
    )


@needs_ske
def test_gold_heads_decode_to_the_gold_set_over_all_real_sentences(monkeypatch: pytest.MonkeyPatch):
    files = [str(SKE / name) for name in ("train_data.json", "train_extra_duie2.json")]
    data = TripleDataModule(source=str(SKE), train_file=files[0], test_file=files[1], eval_batch_size=256, prior=False)
    data.setup("test")
    model = build(data, rules=False)
    sentences = exact = unclear = 0
    for loader in (data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            for text, gold, found in zip(
                batch.texts, batch.triples, gold_decoding(model, batch, monkeypatch), strict=True
            ):
                gold = set(gold)
                if not gold or any(s not in text or o not in text for s, _, o in gold):
                    continue
                sentences += 1
                exact += found == gold
                if ambiguous(text, gold):
                    unclear += 1
                else:
                    assert found == gold, text
    assert sentences > 10_900
    assert unclear < 0.02 * sentences, "half pointers can't resolve which ends belong to which of two nested spans"
    assert exact > 0.98 * sentences


def test_gold_heads_decode_to_the_gold_set_on_the_sample(sample: TripleDataModule, monkeypatch: pytest.MonkeyPatch):
    model = build(sample, rules=False)
    for batch in sample.val_dataloader():
        found = gold_decoding(model, batch, monkeypatch)
        for text, gold, triples in zip(batch.texts, batch.triples, found, strict=True):
            assert ambiguous(text, set(gold)) or triples == set(gold)


def test_loss_is_the_formula_and_padding_does_not_change_it(sample: TripleDataModule):
    model = build(sample)
    batch = next(iter(sample.train_dataloader()))
    losses = model.losses(model.encode(batch), batch)
    subject_sum = object_sum = characters = 0.0
    for row in range(len(batch.characters)):
        single = one_sentence(batch, row)
        length = single.characters.shape[1]
        encoded = model.encode(single)
        characters += length
        target = torch.zeros(length, 2)
        for _, start, end in single.subjects.tolist():
            target[start, 0] = target[end, 1] = 1
        probabilities = encoded.subjects[0].exp()
        subject_sum += F.binary_cross_entropy(probabilities, target, reduction="sum").item()
        if single.spans[0, 0] < 0:
            continue
        log_p = model.objects(encoded, single.candidates, torch.zeros(1, dtype=torch.int64), single.spans)
        target = torch.zeros(length, len(model.predicates), 2)
        for _, start, end, predicate in single.objects.tolist():
            target[start, predicate, 0] = target[end, predicate, 1] = 1
        # A sum over predicates, a mean over characters.
        object_sum += F.binary_cross_entropy(log_p[0].exp(), target, reduction="sum").item()
    assert losses["subject_loss"].item() == pytest.approx(subject_sum / characters, rel=1e-4)
    assert losses["object_loss"].item() == pytest.approx(object_sum / characters, rel=1e-4)
    assert losses["loss"].item() == pytest.approx((subject_sum + object_sum) / characters, rel=1e-4)


def test_a_negative_span_has_no_objects_but_a_loss(sample: TripleDataModule):
    model = build(sample)
    count = 0
    for batch in sample.train_dataloader():
        gold = {tuple(subject) for subject in batch.subjects.tolist()}
        negatives = [row for row, span in enumerate(batch.spans.tolist()) if (row, *span) not in gold]
        assert not set(negatives) & set(batch.objects[:, 0].tolist())
        for row in negatives[:1]:
            single = one_sentence(batch, row)
            assert model.losses(model.encode(single), single)["object_loss"] > 0
        count += len(negatives)
    assert count, "sentences with several subjects give wrong spans"


@pytest.mark.parametrize("encoder", [None, BiLSTM])
def test_a_batch_of_different_lengths_equals_one_by_one(sample: TripleDataModule, encoder: type | None):
    model = build(sample, **({} if encoder is None else {"encoder": encoder}))
    batch = next(iter(sample.val_dataloader()))
    assert len({int((row > 0).sum()) for row in batch.characters}) > 3
    encoded = model.encode(batch)
    rows = torch.arange(len(batch.characters))
    spans = batch.spans.clamp(min=0)
    objects = model.objects(encoded, batch.candidates, rows, spans)
    with torch.no_grad():  # an untrained model is nearly constant: rounding would decide
        for layer in (model.subject_head.ends, model.object_head.ends):
            layer.weight *= 100
        model.thresholds.copy_(torch.tensor(loose_thresholds(model, batch)))
        together = model(batch)
        singly = [model(one_sentence(batch, row))[0] for row in rows.tolist()]
        for layer in (model.subject_head.ends, model.object_head.ends):
            layer.weight /= 100
    assert sum(map(len, together)) > 0
    assert [[triple[:5] for triple in found] for found in together] == [
        [triple[:5] for triple in found] for found in singly
    ]
    for row in rows.tolist():
        single = one_sentence(batch, row)
        length = single.characters.shape[1]
        alone = model.encode(single)
        torch.testing.assert_close(encoded.subjects[row, :length], alone.subjects[0], atol=1e-5, rtol=1e-5)
        own = model.objects(alone, single.candidates, torch.zeros(1, dtype=torch.int64), spans[row : row + 1])
        torch.testing.assert_close(objects[row, :length], own[0], atol=1e-5, rtol=1e-5)


def test_several_settings_at_once_equal_one_at_a_time(sample: TripleDataModule):
    model = build(sample)
    batch = next(iter(sample.val_dataloader()))
    encoded = model.encode(batch)
    first = loose_thresholds(model, batch)
    higher = Thresholds(*(1.0002 * limit for limit in first))
    settings = [Thresholds(*limits) for limits in product(*zip(first, higher, strict=True))]
    together = model.decode(batch, encoded, settings)
    counts = [sum(map(len, found)) for found in together]
    assert counts[0] > 0
    assert len(set(counts)) > 2
    for setting, found in zip(settings, together, strict=True):
        assert found == model.decode(batch, encoded, [setting])[0]


def test_powers_are_powers_of_the_probabilities(sample: TripleDataModule):
    plain, powered = build(sample), build(sample, subject_power=2.0, object_power=4.0)
    batch = next(iter(sample.val_dataloader()))
    rows = torch.arange(len(batch.characters))
    results = []
    for model in (plain, powered):
        encoded = model.encode(batch)
        objects = model.objects(encoded, batch.candidates, rows, batch.spans.clamp(min=0))
        results.append((encoded.subjects.exp(), objects.exp()))
    torch.testing.assert_close(results[1][0], results[0][0] ** 2)
    torch.testing.assert_close(results[1][1], results[0][1] ** 4, atol=1e-7, rtol=1e-3)


def test_prior_features_are_those_of_the_selected_subject(sample: TripleDataModule):
    model = build(sample)
    candidates = torch.tensor([[0, 1, 2, 5, 6, 3], [0, 1, 3, 7, 7, 4], [1, 1, 2, 0, 0, 5]])
    prior = model._object_prior(candidates, torch.tensor([0, 1, 0]), torch.tensor([[1, 2], [1, 2], [4, 4]]), 9)
    assert prior.shape == (3, 9, 2 * len(model.predicates))
    prior = prior.unflatten(2, (-1, 2))
    assert prior.nonzero().tolist() == [[0, 5, 3, 0], [0, 6, 3, 1], [1, 0, 5, 0], [1, 0, 5, 1]]


@needs_ske
def test_64_real_sentences_are_overfitted(tmp_path: Path):
    lines = (SKE / "train_data.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]

    def clear(record: dict) -> bool:
        triples = {(spo["subject"], spo["predicate"], spo["object"]) for spo in record["spo_list"]}
        found = all(s in record["text"] and o in record["text"] for s, _, o in triples)
        return found and not ambiguous(record["text"], triples)

    chosen = [line for line, record in zip(lines, records, strict=True) if clear(record)][:64]
    file = tmp_path / "train_data.json"
    file.write_text("\n".join(chosen))
    (tmp_path / "all_50_schemas").write_text((SKE / "all_50_schemas").read_text())
    data = TripleDataModule(source=str(tmp_path), val_file=str(file), batch_size=8, prior=False, min_count=1)
    data.setup("fit")
    pl.seed_everything(1)
    small = partial(DGCNN, size=64, dilations=(1, 2, 5, 1), dropout=0.0, gate_dropout=0.0)
    model = build(data, encoder=small, lr=3e-3, rules=False)
    callbacks = [AveragedWeights(decay=0.95, ramp=True), PiecewiseLinearLR({20: 1.0, 300: 1.0, 640: 0.02})]
    options = {"check_val_every_n_epoch": 80, "gradient_clip_val": 1.0}
    quiet_trainer(*callbacks, max_epochs=80, **options).fit(model, data)
    metrics = quiet_trainer().test(model, data, verbose=False)[0]
    assert metrics["test/f1"] > 0.99


def test_checkpoint_loads_alone_and_predicts_spans(sample: TripleDataModule, tmp_path: Path):
    model = build(sample)
    batch = next(iter(sample.val_dataloader()))
    fitting = quiet_trainer(limit_train_batches=1, limit_val_batches=1)
    fitting.fit(model, sample)
    fitting.save_checkpoint(tmp_path / "model.ckpt")
    loaded = TripleExtractor.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True).eval()
    loaded.thresholds.copy_(torch.tensor(loose_thresholds(loaded, batch)))
    texts = [*batch.texts, "", "长" * 1300]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    (tmp_path / "in.json").write_text("\n".join(json.dumps({"text": text}) for text in texts if text))
    loaded.predict_file(tmp_path / "in.txt", tmp_path / "out.json", batch_size=3)
    loaded.predict_file(tmp_path / "in.json", tmp_path / "out2.json", batch_size=7)
    records = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    others = [json.loads(line) for line in (tmp_path / "out2.json").read_text().splitlines()]
    assert [record["text"] for record in others] == [text for text in texts if text]
    assert [record["text"] for record in records] == texts
    assert sum(len(record["spo_list"]) for record in records) > 0
    assert not list(tmp_path.glob("*.part"))
    keys = ["predicate", "subject", "subject_type", "object", "object_type"]
    for record in records:
        for triple in record["spo_list"]:
            assert list(triple) == [*keys, "subject_span", "object_span", "confidence"]
            for name in ("subject", "object"):
                assert record["text"][slice(*triple[f"{name}_span"])] == triple[name]
            assert 0 < triple["confidence"] <= 1


def test_many_known_triples_and_words_load(tmp_path: Path):
    """With a parametrised type such as list[...] jsonargparse takes quadratic time: hours instead of seconds here."""
    known = [[f"人{number}", "妻子", f"人{number + 1}"] for number in range(30000)]
    words = [f"词{number}" for number in range(30000)]
    model = TripleExtractor(known_triples=known, prior_features=True, words=words, word_vector_size=2, characters=words)
    saving = quiet_trainer()
    saving.strategy.connect(model)
    saving.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    loaded = TripleExtractor.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.hparams.known_triples == known
    assert loaded.hparams.words == words


# A small model with everything that has state or randomness.
RECIPE = """
trainer:
  accelerator: cpu
  max_epochs: 4
  log_every_n_steps: 1
  num_sanity_val_steps: 0
  callbacks:
    - class_path: PiecewiseLinearLR
      init_args:
        schedule: {3: 1.0}
    - class_path: AveragedWeights
      init_args:
        decay: 0.9999
        ramp: true
    - class_path: TwoStageTraining
      init_args:
        max_first_epochs: 2
model:
  init_args:
    encoder:
      class_path: DGCNN
      init_args:
        size: 16
        dilations: [1, 2]
data:
  init_args:
    sample_train_size: 60
    sample_test_size: 13
    batch_size: 8
    augment: 0.5
"""


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return ["-c", str(ROOT / "configs/triples_sample.yaml"), "-c", str(tmp_path / "tiny.yaml")]


def test_killed_and_resumed_equals_unbroken(tmp_path: Path, tiny: list[str]):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = [*tiny, "--save_every=0"]
    result = script("train", *options, "--run_dir", whole, cwd=tmp_path)
    assert "TwoStageTraining: epoch 2" in result.stdout
    start_and_kill(options, broken, rows=20)  # in the second stage
    assert not (broken / "summary.json").exists()
    script("train", "--resume", broken, cwd=tmp_path)
    expected, found = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, broken))
    for part in ("state_dict", "optimizer_states", "callbacks", "global_step"):
        assert equal(expected[part], found[part]), part
    assert (whole / "metrics.csv").read_text() == (broken / "metrics.csv").read_text()


def test_thresholds_are_tuned_and_kept_when_asked(sample: TripleDataModule):
    model = build(sample, tune_thresholds=True)
    fitting = quiet_trainer(limit_train_batches=2, limit_val_batches=1)
    fitting.fit(model, sample)
    assert "thresholds" in model.state_dict()
    assert "thresholds" not in build(sample).state_dict()
    start, end = model.thresholds[:2].tolist()
    assert start - end == pytest.approx(0.1, abs=1e-6)
    metrics = fitting.callback_metrics
    assert {"val/f1", "val/precision", "val/recall", "val/loss"} <= metrics.keys()


def test_test_step_returns_what_the_pictures_need(sample: TripleDataModule):
    model = build(sample)
    model.scores.reset()
    batch = next(iter(sample.test_dataloader()))
    output = model.test_step(batch, 0)
    assert output["texts"] == batch.texts
    assert output["threshold_counts"].shape == (len(output["thresholds"]), 3)
    total = sum(len(set(triples)) for triples in batch.triples)
    assert (output["threshold_counts"][:, 2] == total).all()
    assert (output["threshold_counts"][:, 0] <= output["threshold_counts"][:, 1]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresholds": (0.5, 0.4, 0.5, 1.0)}, "four numbers strictly between 0 and 1"),
        ({"thresholds": (0.5, 0.4)}, "four numbers strictly between 0 and 1"),
        ({"subject_power": 0.0}, "subject_power (0.0) must be positive"),
        ({"schema": []}, "schema is empty: it needs at least one predicate"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        TripleExtractor(**arguments)


def test_the_benchmarks_reference_computes_the_same(sample: TripleDataModule):
    # It works sentence by sentence, with torch's convolutions, products of probabilities and loops.
    model = build(sample, rules=False)
    with torch.no_grad():  # an untrained model is nearly constant: rounding would decide
        for layer in (model.subject_head.ends, model.object_head.ends):
            layer.weight *= 100
    reference = Reference(model)
    batch = next(iter(sample.train_dataloader()))
    lengths = (batch.characters > 0).sum(1).tolist()
    with torch.no_grad():
        loss = sum(reference._loss(batch, row, length) for row, length in enumerate(lengths))
        torch.testing.assert_close(model.losses(model.encode(batch), batch)["loss"], loss)
        model.thresholds.copy_(torch.tensor(loose_thresholds(model, batch)))
        found = [{triple[:3] for triple in triples} for triples in model(batch)]
        expected = [reference._triples(batch, row, length) for row, length in enumerate(lengths)]
    assert sum(map(len, found)) > 0
    assert found == expected
