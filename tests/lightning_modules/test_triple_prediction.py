"""Triples of texts and files: aligned lines, records kept, the text's own positions, DuIE 2.0, thresholds."""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from datamodules import TripleDataModule
from datamodules.batches import TripleBatch
from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.train import train
from lightning_modules import TripleExtractor
from lightning_modules.triple_decoding import GRID, Thresholds, best_setting
from lightning_modules.triple_slots import compose_objects, spo_record
from metrics import ExtractedTriple
from readers.errors import DataError
from readers.triples.json_lines import read_sentences
from tests.conftest import ROOT
from tests.tools import quiet_trainer

SCHEMA = [["人", "票房", "数"], ["人", "票房@inArea", "地"], ["人", "在", "地"]]


class Finder(TripleExtractor):
    """Finds each ``a`` … ``b`` as a triple, whatever the network says; it reads ``texts``."""

    def decode(self, batch: TripleBatch, encoded: object, settings: list[Thresholds]) -> list:
        self.asked = [*getattr(self, "asked", []), (batch.texts, settings[0], self.pairing)]
        found = []
        for text in batch.texts:
            first, last = text.find("a"), text.find("b")
            spans = ((first, first + 1), (last, last + 1))
            found.append([ExtractedTriple("a", "在", "b", *spans, 0.5)] if min(first, last) >= 0 else [])
        return [found] * len(settings)


@pytest.fixture(scope="module")
def model() -> TripleExtractor:
    return Finder(schema=SCHEMA[2:], characters=["<pad>", "<unk>", *"ab"], normalize="both").eval()


def lines(path: Path) -> list[dict]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_extract_gives_a_list_for_each_text(model: TripleExtractor):
    found = model.extract(["", "　Ａ b", "x", " \n", "ba"], batch_size=1)
    assert [len(triples) for triples in found] == [0, 1, 0, 0, 1]
    # In the characters of the text itself.
    assert found[1][0] == ("Ａ", "在", "b", (1, 2), (3, 4), 0.5)
    assert found[4][0][:5] == ("a", "在", "b", (1, 2), (0, 1))
    assert model.extract([]) == []
    model.train()
    model.extract(["ab"])
    assert not model.training
    with pytest.raises(ValueError, match=r"batch_size \(0\) must be at least 1"):
        model.extract(["ab"], batch_size=0)
    with pytest.raises(TypeError, match="list of texts"):
        model.extract("ab")
    with pytest.raises(TypeError, match="text 2 is of type NoneType"):
        model.extract(["ab", None])


@pytest.mark.parametrize("packed", [False, True])
def test_records_keep_their_keys_and_lines_their_places(model: TripleExtractor, tmp_path: Path, packed: bool):
    records = [
        {"id": 1, "text": "a b"},
        {"text": "  ", "x": [None]},
        {"text": "", "id": 2},
        {"text": " Ａ\nb", "id": 3},
    ]
    text = "\n".join([json.dumps(records[0]), "", *map(json.dumps, records[1:])])
    source = tmp_path / ("in.json.gz" if packed else "in.json")
    source.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    output = tmp_path / ("out.json.gz" if packed else "out.json")
    said = model.predict_file(source, output, batch_size=2)
    assert said == f"5 sentences, 2 triples -> {output}"
    written = lines(output)
    triples = [record.pop("spo_list") for record in written]
    assert written == [records[0], {"text": ""}, *records[1:]]
    assert [len(found) for found in triples] == [1, 0, 0, 0, 1]
    assert triples[4] == [
        {"predicate": "在", "subject": "Ａ", "subject_type": "人", "object": "b", "object_type": "地",
         "subject_span": [1, 2], "object_span": [3, 4], "confidence": 0.5}
    ]  # fmt: skip
    # What is predicted trains again.
    again = [json.dumps({**r, "spo_list": t}) for r, t in zip(written, triples, strict=True) if r["text"].strip()]
    output.with_name("again.json").write_text("\n".join(again))
    (first, last) = read_sentences(output.with_name("again.json"), ["在"])
    assert first.mentions == ((((0, 1), (2, 3)),),)
    assert last.mentions == ((((0, 1), (2, 3)),),)  # the blank before the text is left out


def test_plain_texts_and_other_encodings(model: TripleExtractor, tmp_path: Path):
    text = "一 a b\r\n\r\n　ａ中b "
    for encoding in ("utf-8", "gbk", "utf-16"):
        (tmp_path / "in.txt").write_bytes(text.encode(encoding))
        model.predict_file(tmp_path / "in.txt", tmp_path / "out.json", encoding=encoding)
        assert [(record["text"], len(record["spo_list"])) for record in lines(tmp_path / "out.json")] == [
            ("一 a b", 1),
            ("", 0),
            ("　ａ中b ", 1),
        ]


@pytest.mark.parametrize(
    ("text", "expected"), [("\n" + '{"text": "a b", "id": 1}\n' * 3, [0, 1, 1, 1]), ("a b\n" * 2, [1, 1])]
)
def test_a_pipe_is_read_once(model: TripleExtractor, tmp_path: Path, text: str, expected: list[int]):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe:
        pipe.write(text)
    try:
        model.predict_file(Path(f"/dev/fd/{reader}"), tmp_path / "out.json")
    finally:
        os.close(reader)
    assert [len(record["spo_list"]) for record in lines(tmp_path / "out.json")] == expected


def test_bad_lines_stop_or_are_named(model: TripleExtractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = json.dumps({"text": "a b"})
    bad = ['{"text": "abc', "[1]", '{"id": 3}', '{"text": 4, "id": 4}']
    (tmp_path / "in.json").write_text("\n".join([good, *bad, good]))
    output = tmp_path / "out.json"
    output.write_text("an older one")
    with pytest.raises(ValueError, match=r"in\.json, line 2: broken JSON.*1 lines before it are in .*out\.json\.part"):
        model.predict_file(tmp_path / "in.json", output)
    assert output.read_text() == "an older one"
    said = model.predict_file(tmp_path / "in.json", output, on_error="skip")
    assert "4 bad lines skipped" in said
    named = capsys.readouterr().err
    assert all(f"line {number}: " in named for number in range(2, 6))
    found = [{"subject": "a", "object": "b"}]
    kept = [{name: triple[name] for name in ("subject", "object")} for r in lines(output) for triple in r["spo_list"]]
    assert kept == found * 2
    assert [record.get("id") for record in lines(output)] == [None, None, None, 3, 4, None]


def test_a_first_line_that_can_not_be_decoded_is_skipped_too(model: TripleExtractor, tmp_path: Path):
    (tmp_path / "in").write_bytes("中文".encode("gbk") + b"\na b\n")
    model.predict_file(tmp_path / "in", tmp_path / "out.json", on_error="skip")
    assert [len(record["spo_list"]) for record in lines(tmp_path / "out.json")] == [0, 1]


def test_thresholds_and_spans_of_a_prediction(tmp_path: Path):
    model = Finder(schema=SCHEMA[2:], characters=["<pad>", "<unk>", *"ab"], thresholds=(0.7, 0.6, 0.5, 0.4)).eval()
    (tmp_path / "in.txt").write_text("a b")

    def asked(**options):
        model.predict_file(tmp_path / "in.txt", tmp_path / "out.json", **options)
        return model.asked[-1][1:]

    usual = pytest.approx((0.7, 0.6, 0.5, 0.4))
    assert asked() == (usual, "nearest")
    with pytest.raises(ValueError, match="--thresholds=tuned: this run has none"):
        asked(thresholds="tuned")
    model.tuned = Thresholds(0.3, 0.2, 0.8, 0.7)
    assert asked() == asked(thresholds="tuned") == (model.tuned, "nearest")
    assert asked(thresholds="config", spans="nested") == (usual, "nested")
    assert asked() == (model.tuned, "nearest")
    model.extract(["a b"])
    assert model.asked[-1][1] == model.tuned


def test_tuned_thresholds_are_in_the_checkpoint():
    model = TripleExtractor(schema=SCHEMA)
    model.tuned = Thresholds(0.3, 0.2, 0.8, 0.7)
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    other = TripleExtractor(schema=SCHEMA)
    other.on_load_checkpoint(checkpoint)
    assert other.tuned == model.tuned
    earlier = TripleExtractor(schema=SCHEMA, tune_thresholds=True)
    earlier.on_load_checkpoint({"state_dict": {"thresholds": torch.tensor([0.5, 0.25, 0.5, 0.25])}})
    assert earlier.tuned == (0.5, 0.25, 0.5, 0.25)


def test_of_equal_scores_the_usual_thresholds_are_taken():
    assert GRID[best_setting(torch.ones(len(GRID)), (0.5, 0.4, 0.5, 0.4))] == (0.5, 0.4, 0.5, 0.4)
    f1 = torch.zeros(len(GRID))
    f1[3] = f1[40] = 1
    assert best_setting(f1, GRID[40]) == 40


# DuIE 2.0.


def found(text: str, subject: str, predicate: str, obj: str, confidence: float = 0.5) -> ExtractedTriple:
    spans = [(text.find(name), text.find(name) + len(name)) for name in (subject, obj)]
    return ExtractedTriple(subject, predicate, obj, spans[0], spans[1], confidence)


@pytest.mark.parametrize(
    ("text", "values", "slots", "expected"),
    [
        ("x在中国3亿", ["3亿"], ["中国"], [("3亿", "中国")]),
        # As many: in the order of the text.
        ("x在中国3亿，在美国5亿", ["3亿", "5亿"], ["中国", "美国"], [("3亿", "中国"), ("5亿", "美国")]),
        # Fewer: each value takes the nearest. More: one more object.
        ("x在中国3亿后5亿", ["3亿", "5亿"], ["中国"], [("3亿", "中国"), ("5亿", "中国")]),
        ("x3亿在中国和美国", ["3亿"], ["中国", "美国"], [("3亿", "中国"), ("3亿", "美国")]),
        ("x在中国", [], ["中国"], []),
        ("x3亿", ["3亿"], [], [("3亿", None)]),
    ],
)
def test_slots_are_put_together(text: str, values: list[str], slots: list[str], expected: list[tuple]):
    triples = [found(text, "x", "票房", value) for value in values]
    triples += [found(text, "x", "票房@inArea", slot, 0.25) for slot in slots] + [found(text, "y", "在", "x")]
    predicates = [row[1] for row in SCHEMA]
    objects = [one for one in compose_objects(triples, predicates) if one["@value"].predicate == "票房"]
    assert [(o["@value"].object, o["inArea"].object if "inArea" in o else None) for o in objects] == expected
    assert len(compose_objects(triples, predicates)) == len(expected) + 1


def test_duie_2_is_written_and_read_in_its_own_form(tmp_path: Path):
    text = "x在中国3亿"
    triples = [
        found(text, "x", "票房", "3亿"),
        found(text, "x", "票房@inArea", "中国", 0.25),
        found(text, "x", "在", "中国"),
    ]
    types = {predicate: (subject, obj) for subject, predicate, obj in SCHEMA}
    rows = [spo_record(slots, types, True) for slots in compose_objects(triples, list(types))]
    assert rows[0] == {
        "predicate": "票房", "subject": "x", "subject_type": "人",
        "object": {"@value": "3亿", "inArea": "中国"}, "object_type": {"@value": "数", "inArea": "地"},
        "subject_span": [0, 1], "object_span": [4, 6], "confidence": 0.25, "slot_spans": {"inArea": [2, 4]},
    }  # fmt: skip
    assert rows[1]["object"] == {"@value": "中国"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"text": text, "spo_list": rows}))
    (sentence,) = read_sentences(path, list(types))
    assert sentence.triples == tuple(triple[:3] for triple in triples)
    assert sentence.mentions == tuple(((triple.subject_span, triple.object_span),) for triple in triples)


def test_aliases_of_a_file_count_in_the_competitions_score_alone(tmp_path: Path):
    rows = [("a在b", "b"), ("a在 b", "Beta"), ("a又b", "《β》")]  # what is found is always (a, 在, b)
    text = "".join(
        json.dumps({"text": text, "spo_list": [{"subject": "a", "predicate": "在", "object": name}]}) + "\n"
        for text, name in rows
    )
    for name in ("train_data.json", "dev_data.json"):
        (tmp_path / name).write_text(text)
    (tmp_path / "aliases.tsv").write_text("beta\tB\tβ\n")
    files = {"source": str(tmp_path), "schema": "from_data", "prior": False}

    def scores(**options) -> list[float]:
        data = TripleDataModule(**files, **options)
        links = {name: getattr(data, name) for name in TripleExtractor.data_links}
        with pytest.warns(UserWarning, match="2 of 3 triples are not in the text"):
            (found,) = quiet_trainer().test(Finder(**links), data, verbose=False)
        return [found[f"test/{name}"] for name in ("f1", "official_precision", "official_recall", "official_f1")]

    assert scores() == pytest.approx([1 / 3] * 4)
    assert scores(alias_file="aliases.tsv") == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    (tmp_path / "aliases.tsv").write_text("beta\tB\nb\tβ\n")
    assert scores(alias_file=str(tmp_path / "aliases.tsv")) == pytest.approx([1 / 3, 1, 1, 1])
    (tmp_path / "aliases.tsv").write_text("beta\n")
    with pytest.raises(DataError, match=r"aliases\.tsv, line 1: expected a name and its aliases"):
        scores(alias_file="aliases.tsv")


def test_a_model_is_measured_and_continued_on_another_source(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    def write(folder: str, name: str, *texts: str, predicate: str = "在") -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        rows = [
            {"text": text, "spo_list": [{"subject": text[0], "predicate": predicate, "object": text[-1]}]}
            for text in texts
        ]
        (tmp_path / folder / f"{name}_data.json").write_text("\n".join(map(json.dumps, rows)))

    for name in ("train", "dev"):
        write("own", name, *["一在二", "二在一"] * 4)
        write("next", name, *["一在三", "三在一"] * 4)
    write("other", "test", "一在龍", "龍在二")
    write("unknown", "test", "一在二", predicate="爱")
    run, new = tmp_path / "run", tmp_path / "new"
    tiny = [
        *("-c", str(ROOT / "configs" / "triples_sample.yaml"), "--trainer.callbacks=[]", "--min_steps=0"),
        *("--model.encoder.init_args.size=4", "--model.encoder.init_args.dilations=[1]", "--data.batch_size=4"),
        *("--trainer.max_epochs=1", "--data.schema=from_data", "--data.min_batches=1", "--trainer.accelerator=cpu"),
    ]
    source = {name: f"--data.source={tmp_path / name}" for name in ("own", "next", "other", "unknown")}
    assert run_main(train, [*tiny, source["own"], "--run_dir", str(run)]) == 0
    assert run_main(evaluate, [str(run), source["other"], "--json", str(tmp_path / "m.json")]) == 0
    assert "test/f1" in json.loads((tmp_path / "m.json").read_text())["metrics"]
    assert run_main(evaluate, [str(run), f"--data.test_file={tmp_path / 'other' / 'test_data.json'}"]) == 0
    capfd.readouterr()
    assert run_main(evaluate, [str(run), source["unknown"]]) == 2
    assert "the predicate 爱 is not in the schema" in capfd.readouterr().err
    assert run_main(train, [*tiny, source["next"], "--init_from", str(run), "--run_dir", str(new)]) == 0
    assert run_main(train, ["--resume", str(run), source["next"], "--trainer.max_epochs=2"]) == 0
    own, *others = [TripleExtractor.load(folder).hparams for folder in (run, new)]
    for hparams in others:
        assert [*hparams.characters] == [*own.characters] == ["<pad>", "<unk>", "一", "二", "在"]
        assert hparams.schema == own.schema
        assert [*map(list, hparams.known_triples)] == [["一", "在", "二"], ["二", "在", "一"]]


def test_a_saved_model_loads_from_python(tmp_path: Path):
    model = TripleExtractor(schema=SCHEMA, object_slots=True, normalize="case")
    (tmp_path / "checkpoints").mkdir()
    saving = quiet_trainer()
    saving.strategy.connect(model)
    saving.save_checkpoint(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    for place in (tmp_path, tmp_path / "checkpoints/best.ckpt"):
        loaded = TripleExtractor.load(place)
        assert not loaded.training
        assert len(loaded.extract(["一二三", ""])) == 2
        assert (loaded.hparams.object_slots, loaded.hparams.normalize) == (True, "case")
