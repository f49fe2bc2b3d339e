import json
import math
import warnings
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.nn import functional as F

from callbacks import LengthScaledLR, NonMonotonicAverage
from datamodules import DataError, TextDataModule
from datamodules.batches import ParseBatch, TokenBatch
from experiment.errors import run_main
from experiment.evaluate import evaluate
from experiment.train import train
from layers import LSTM, ONLSTM
from layers.reuse import clone
from lightning_modules import ONLSTMLanguageModel
from lightning_modules.prediction.on_lstm import lookup
from tests.conftest import ROOT, SHARED, script
from tests.tools import equal, quiet_trainer, start_and_kill

PTB = SHARED / "ptb"
NO_DROPOUT = {"input_dropout": 0.0, "word_dropout": 0.0, "layer_dropout": 0.0, "output_dropout": 0.0}
SMALL = {"embedding_size": 20, "hidden_size": 30, "num_layers": 2}
# Command-line options for a tiny model and data.
TINY = [
    "-c",
    ROOT / "configs" / "on_lstm_sample.yaml",
    "--trainer.accelerator=cpu",
    "--trainer.callbacks=[]",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=1",
    "--trainer.precision=32-true",
    "--model.embedding_size=20",
    "--model.hidden_size=20",
    "--model.num_layers=2",
    "--data.sample_train_size=60",
    "--data.sample_test_size=20",
    "--data.batch_size=5",
]


def data(**changes) -> TextDataModule:
    sizes = {"sample_train_size": 60, "sample_test_size": 20, "batch_size": 5, "eval_batch_size": 4, "bptt": 20}
    return TextDataModule(source="sample", **{**sizes, **changes})


def model(data: TextDataModule, **changes) -> ONLSTMLanguageModel:
    torch.manual_seed(0)
    arguments = {**SMALL, "vocabulary": data.vocabulary, "level": data.level, **changes}
    return ONLSTMLanguageModel(**arguments)


def test_the_papers_size():
    vocabulary = ["<eos>", "<unk>", *map(str, range(9_998))]
    with torch.device("meta"):
        paper = ONLSTMLanguageModel(vocabulary=vocabulary)
    assert sum(parameter.numel() for parameter in paper.parameters()) == 25_232_180
    assert [(cell.input_size, cell.hidden_size) for cell in paper.cells] == [(400, 1150), (1150, 1150), (1150, 400)]
    assert paper.output.embedding is paper.embedding


@pytest.mark.parametrize("cell", [ONLSTM, LSTM])
def test_the_loss_equals_its_formula(cell, monkeypatch):
    text = data()
    module = model(text, cell=cell, **NO_DROPOUT, activation_penalty=2.0, temporal_penalty=3.0)
    monkeypatch.setattr(module, "log_dict", lambda *_: None)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    batch = next(iter(text.train_dataloader()))
    loss = module.training_step(batch, 0)

    x = module.embedding.weight[batch.inputs].transpose(0, 1)
    for layer in module.cells:
        x, _, _ = layer(x)
    total = 0.0
    for time, row in [(time, row) for time in range(x.shape[0]) for row in range(x.shape[1])]:
        logits = module.embedding.weight @ x[time, row] + module.output.bias
        total = total - torch.log_softmax(logits, 0)[batch.targets[row, time]]
    penalty = 2.0 * (x**2).mean() + 3.0 * ((x[1:] - x[:-1]) ** 2).mean()
    torch.testing.assert_close(loss, total / batch.targets.numel() + penalty)


def test_the_state_is_carried_detached_and_reset_each_epoch(monkeypatch):
    text = data(variable_bptt=False)
    module = model(text, **NO_DROPOUT, activation_penalty=0.0, temporal_penalty=0.0)
    monkeypatch.setattr(module, "log_dict", lambda *_: None)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    first, second, *_ = text.train_dataloader()
    losses = [module.training_step(first, 0), module.training_step(second, 1)]
    both = TokenBatch(torch.cat([first.inputs, second.inputs], 1), torch.cat([first.targets, second.targets], 1))
    module._epoch = -1  # as if in another epoch
    torch.testing.assert_close(module.training_step(both, 0), (losses[0] + losses[1]) / 2)
    losses[1].backward()  # would fail if it reached into the first window's graph, which has been freed
    assert not any(h.requires_grad or c.requires_grad for h, c in module._state)


@pytest.mark.parametrize("rows", [1, 4])
def test_perplexity_is_that_of_the_whole_text(rows):
    text = data(eval_batch_size=rows, test_batch_size=rows)
    module = model(text).eval()
    run = quiet_trainer()
    validated, _ = run.validate(module, text, verbose=False)  # the second: of the trees
    tokens = text.corpus.texts["valid"].long()
    length = len(tokens) // rows
    parts = tokens[: rows * length].view(rows, length)
    with torch.no_grad():
        x, _, _, _ = module(parts[:, :-1])
        losses = F.cross_entropy(module.output(x).permute(1, 2, 0), parts[:, 1:], reduction="none")
    assert validated["val/loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert validated["val/perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
    assert "val/bits_per_character" not in validated


def test_characters_are_measured_in_bits():
    text = data(level="character", sample_train_size=20, sample_test_size=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*ParseF1")  # there is nothing to parse
        (tested,) = quiet_trainer().test(model(text), text, verbose=False)
    assert tested["test/bits_per_character"] == pytest.approx(tested["test/loss"] / math.log(2))
    assert 4 < tested["test/bits_per_character"] < 6, "about log2 of the number of characters"
    assert not any("f1" in name for name in tested)


def test_the_test_scores_the_trees_of_each_layer_and_the_baselines():
    text = data()
    results = quiet_trainer().test(model(text), text, verbose=False)
    tested = {name.split("/dataloader_idx")[0]: value for result in results for name, value in result.items()}
    for place in ("right_branching", "left_branching", "balanced", "random"):
        assert {f"test/{place}/sentence_f1_no_root", f"test/{place}/corpus_f1_evalb_wsj10"} <= tested.keys()
    for layer in (1, 2):
        assert {f"test/sentence_f1_no_root/layer{layer}", f"test/corpus_f1_evalb/layer{layer}"} <= tested.keys()
        assert f"test/recall/NP/layer{layer}" in tested
    assert {"test/perplexity", "test/loss"} <= tested.keys()
    assert "test/sentence_f1_no_root/layer3" not in tested

    lstm = quiet_trainer().test(model(text, cell=LSTM), text, verbose=False)
    names = {name for result in lstm for name in result}
    assert any("right_branching" in name for name in names)
    assert not any("layer1" in name for name in names)


def test_a_sentence_is_read_alone_in_any_batch():
    text = data()
    module = model(text).eval()
    batch = list(text.test_dataloader()[1])[-1]
    distances, trees = module.parse_batch(batch.inputs, batch.lengths)
    assert distances.shape == (2, len(batch.words), int(batch.lengths.max()))
    for row, length in enumerate(batch.lengths.tolist()):
        x = module.embedding(batch.inputs[row : row + 1, : length + 2].T)
        for layer, cell in enumerate(module.cells):
            x, _, (forget, _) = cell(x)
            torch.testing.assert_close(distances[layer, row, :length], forget[0, 1:-1, 0])
            top = int(forget[0, 1:-1, 0].argmax())
            tree = trees[layer][row]
            left = leaves(tree[0]) if top else []
            assert left == list(range(top))
        assert distances[:, row, length:].isnan().all()


def leaves(tree) -> list[int]:
    return [tree] if isinstance(tree, int) else leaves(tree[0]) + leaves(tree[1])


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_resumed_inside_an_epoch_equals_unbroken(tmp_path, stop):
    """All state carried in training: hidden state, window lengths, dropout, the average."""

    def parts(folder: Path, **arguments):
        text = data()
        callbacks = [LengthScaledLR(20), NonMonotonicAverage("val/loss", 0)]
        saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        return model(text, lr=1.0), text, quiet_trainer(*callbacks, saver, max_epochs=3, **arguments)

    torch.manual_seed(1)
    whole, text, run = parts(tmp_path / "whole")
    states = {}
    run.callbacks.insert(0, RandomStates(states))
    run.fit(whole, text)
    assert run.global_step > 12
    path = tmp_path / "whole" / f"step={stop}.ckpt"
    resumed, text, run = parts(tmp_path / "again")
    run.callbacks.insert(0, RandomStates({}, start=states[stop]))
    run.fit(resumed, text, ckpt_path=str(path), weights_only=True)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    for ours, theirs in zip(whole._state, resumed._state, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


RECIPE = """
trainer:
  callbacks:
    - {class_path: LengthScaledLR, init_args: {base_length: 20}}
    - {class_path: NonMonotonicAverage, init_args: {patience: 0}}
"""


def test_killed_and_resumed_equals_unbroken(tmp_path):
    """From the command line, after averaging has begun."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    tiny = [option for option in map(str, TINY) if "callbacks" not in option]
    steep = ["--model.optimizer=torch.optim.SGD", "--model.lr=60", "--trainer.max_epochs=4", "--save_every=0"]
    options = [*tiny[:2], "-c", str(tmp_path / "recipe.yaml"), *tiny[2:], *steep]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    script("train", *options, "--run_dir", whole, cwd=tmp_path)
    start_and_kill(options, broken, rows=31)
    before = torch.load(broken / "checkpoints/last.ckpt", weights_only=True)
    assert average(before)["averaging"]
    assert not (broken / "summary.json").exists()
    script("train", "--resume", broken, cwd=tmp_path)
    expected, found = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, broken))
    assert average(expected)["averaging"]
    for part in ("state_dict", "hidden_states", "optimizer_states", "callbacks"):
        assert equal(expected[part], found[part]), part
    assert (whole / "metrics.csv").read_text() == (broken / "metrics.csv").read_text()


def average(checkpoint: dict) -> dict:
    return next(state for name, state in checkpoint["callbacks"].items() if name.startswith("NonMonotonicAverage"))


class RandomStates(pl.Callback):
    """Records torch's random state after each step, or sets it at the start."""

    def __init__(self, states: dict[int, torch.Tensor], start: torch.Tensor | None = None) -> None:
        self.states, self.start = states, start

    def on_train_batch_start(self, *_) -> None:
        if self.start is not None:
            torch.set_rng_state(self.start)
            self.start = None

    def on_train_batch_end(self, run: pl.Trainer, *_) -> None:
        self.states[run.global_step] = torch.get_rng_state()


def test_a_few_sentences_are_overfitted():
    text = data(sample_train_size=4, batch_size=1, variable_bptt=False, bptt=60)
    module = model(text, **NO_DROPOUT, hidden_size=60, embedding_size=40, lr=0.01, optimizer=torch.optim.Adam)
    run = quiet_trainer(max_epochs=80, gradient_clip_val=1.0, limit_val_batches=0)
    run.fit(module, text)
    assert float(run.callback_metrics["train/cross_entropy"]) < 0.5, "initially about 4"


def test_checkpoint_loads_alone_and_parses_a_file(tmp_path):
    script("train", *TINY, "--trainer.max_epochs=1", "--run_dir", tmp_path / "run", cwd=tmp_path)
    loaded = ONLSTMLanguageModel.load_from_checkpoint(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    file = tmp_path / "in.txt"
    file.write_text("The old teacher sleeps .\n\nhello (world)\nMary laughs\nstop\n")
    script("predict", tmp_path / "run", "--input", file, "--output", tmp_path / "out.txt", "--layer=1", cwd=tmp_path)
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert lines[1:] == ["", "(hello -LRB-world-RRB-)", "(Mary laughs)", "(stop)"]
    assert lines[0].replace("(", "").replace(")", "") == "The old teacher sleeps ."
    assert lines[0].count("(") == lines[0].count(")") == 4
    index = loaded.index
    assert lookup("The", index) == lookup("the", index) == index["the"] != index["<unk>"]
    assert lookup('"Mary,', index) == index["mary"]
    assert lookup("xyzzy", index) == index["<unk>"]

    # Arguments that don't fit the checkpoint.
    other = script("evaluate", tmp_path / "run", "--data.level=character", cwd=tmp_path, check=False)
    (line,) = other.stderr.splitlines()
    assert other.returncode == 2
    assert "data.level is character, the trained model's word: set it to that" in line
    wrong = script(
        "predict", tmp_path / "run", "--input", file, "--output", tmp_path / "o", "--layer=3", cwd=tmp_path, check=False
    )
    assert wrong.returncode == 2
    assert "layer (3) must be from 1 to 2" in wrong.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", None), (b"caf\xe9 ol\xe9\n", r"in\.txt.*UTF-8")],
)
def test_files_to_parse(tmp_path, content, message):
    text = data()
    (tmp_path / "in.txt").write_bytes(content)
    if message is None:
        model(text).predict_file(tmp_path / "in.txt", tmp_path / "out.txt")
        assert (tmp_path / "out.txt").read_text() == ""
        return
    with pytest.raises(DataError, match=message):
        model(text).predict_file(tmp_path / "in.txt", tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_trees_and_scores_from_python(tmp_path):
    text = data()
    module = model(text)
    sentences = ["The old teacher sleeps .", "", "mary laughs", " \n "]
    (tmp_path / "in.txt").write_text("\n".join(sentences[:3]))
    module.predict_file(tmp_path / "in.txt", tmp_path / "out.txt")
    assert module.parse(sentences)[:3] == (tmp_path / "out.txt").read_text().splitlines()
    assert module.parse(sentences)[3] == ""
    assert module.parse([]) == module.score([]) == []
    assert module.parse(iter(sentences)) == module.parse(sentences)
    for function in (module.parse, module.score):
        with pytest.raises(TypeError, match=f"{function.__name__} takes a list of texts"):
            function(sentences[0])
        with pytest.raises(TypeError, match="text 2 is of type int"):
            function(["mary laughs", 3])
    sentence = [text.vocabulary[number] for number in text.corpus.texts["valid"][:9].tolist()]
    both = " ".join(sentence).replace(" <eos> ", "\n")
    scored = module.score([both, "", f"{both}\n"])
    tokens = torch.tensor([[module.index[word] for word in ("<eos>", *sentence, "<eos>")]])
    with torch.no_grad():
        logits = module.output(module(tokens[:, :-1])[0])[:, 0]
    bits = float(F.cross_entropy(logits, tokens[0, 1:], reduction="sum")) / math.log(2)
    assert scored[0].bits == pytest.approx(bits, rel=1e-5)
    assert scored[0].perplexity == pytest.approx(2 ** (bits / 10), rel=1e-5)
    assert scored[1] == (0.0, 1.0)
    assert scored[2] == scored[0]
    whole = model(text, vocabulary=["<eos>", "<unk>", *"ab"], level="character").score(["ab" * 700])[0]
    assert whole.perplexity == pytest.approx(2 ** (whole.bits / 1401), rel=1e-5), "in windows, the state carried"


def test_the_layer_that_validation_found_best_is_the_default(tmp_path):
    text = data(sample_test_size=40)
    module = model(text, embedding_size=20, num_layers=3)
    run = quiet_trainer(max_epochs=1, limit_train_batches=2)
    run.fit(module, text)
    scores = {layer: float(run.callback_metrics[f"val/corpus_f1_evalb/layer{layer}"]) for layer in (1, 2, 3)}
    assert module.best_layer == max(scores, key=scores.get)
    run.save_checkpoint(tmp_path / "it.ckpt")
    loaded = ONLSTMLanguageModel.load(tmp_path / "it.ckpt")
    assert loaded.best_layer == module.best_layer
    words = ["the old teacher sees the dog that sleeps"]
    for loaded.best_layer in (1, 2, 3):
        assert loaded.parse(words) == loaded.parse(words, layer=loaded.best_layer)
        (tmp_path / "in.txt").write_text(words[0])
        assert f"layer {loaded.best_layer} ->" in loaded.predict_file(tmp_path / "in.txt", tmp_path / "out.txt")
    loaded.best_layer = None
    assert loaded.parse(words) == loaded.parse(words, layer=2)


def test_a_model_is_measured_and_continued_on_another_text(tmp_path, capfd):
    for name, word in (("own", "dog"), ("other", "unicorn")):
        (tmp_path / name).mkdir()
        for split in ("train", "valid", "test"):
            (tmp_path / name / f"{split}.txt").write_text(
                "the cat sees the dog\n" * 30 + f"the cat sees a {word}\n" * 10
            )
    tiny = [str(part) for part in TINY if not str(part).startswith("--data.sample")]
    run, other = tmp_path / "run", f"--data.source={tmp_path / 'other'}"
    tiny += ["--trainer.max_epochs=1", "--data.bptt=5"]
    assert run_main(train, [*tiny, f"--data.source={tmp_path / 'own'}", "--run_dir", str(run)]) == 0
    assert json.loads((run / "summary.json").read_text())["data"]["test_unknown_share"] == 0
    capfd.readouterr()
    assert run_main(evaluate, [str(run), other, "--json", str(tmp_path / "m.json")]) == 0
    printed = capfd.readouterr().out
    assert "5.00% of the words of test" in printed
    assert "5.00% of the words of the test text are <unk>, of the one that the model was trained with 0.00%" in printed
    assert json.loads((tmp_path / "m.json").read_text())["data"]["test_unknown_share"] == 0.05
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "Test.TXT").write_text("the cat sees a unicorn\n" * 4)
    (tmp_path / "book").write_text("the cat sees a dog")
    for name, what in (("only", "Test.TXT is measured whole: 4 lines"), ("book", "book is measured whole: 1 line")):
        assert run_main(evaluate, [str(run), f"--data.source={tmp_path / name}"]) == 0
        assert what in capfd.readouterr().out
    for refused in (["--data.max_words=5"], ["--data.min_count=2", other]):
        assert run_main(evaluate, [str(run), *refused]) == 2
        assert f"{refused[0][2:15]}" in (error := capfd.readouterr().err)
        assert "the trained model's" in error
        assert run_main(train, ["--resume", str(run), *refused, "--trainer.max_epochs=2"]) == 2
    assert run_main(train, [*tiny, other, "--init_from", str(run), "--run_dir", str(tmp_path / "new")]) == 0
    assert run_main(train, ["--resume", str(run), other, "--trainer.max_epochs=2"]) == 0
    vocabularies = [ONLSTMLanguageModel.load(tmp_path / name).hparams.vocabulary for name in ("new", "run")]
    assert vocabularies == [["the", "cat", "sees", "dog", "<eos>", "a", "<unk>"]] * 2
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["data"]["test_unknown_share"] == 0.05


def test_a_clone_with_new_weights_starts_in_the_range_of_the_recipe():
    module = model(data(), embedding_range=0.05)
    drawn = clone(module, weights=False).embedding.weight
    assert not torch.equal(drawn, module.embedding.weight)
    assert drawn.abs().max() <= 0.05


def test_models_without_trees_say_so(tmp_path):
    (tmp_path / "in.txt").write_text("a b\n")
    with pytest.raises(ValueError, match="this model has no trees: LSTM, level word"):
        model(data(), cell=LSTM).predict_file(tmp_path / "in.txt", tmp_path / "out.txt")


def test_data_without_a_vocabulary_is_refused(tmp_path):
    result = script("train", *TINY[:2], "--data=tests.experiment.colours.ColourData", cwd=tmp_path, check=False)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert "takes vocabulary and level and segmenter and keep_layout from its data, which ColourData" in line


@pytest.mark.skipif(not PTB.is_dir(), reason="needs ../shared/data/ptb")
def test_the_papers_model_reads_the_real_text():
    text = TextDataModule(source=str(PTB), batch_size=4, bptt=10)
    module = ONLSTMLanguageModel(cell=partial(ONLSTM, dropconnect=0.45), vocabulary=text.vocabulary)
    assert len(text.vocabulary) == 10_000
    batch = next(iter(text.train_dataloader()))
    _, dropped, _, _ = module(batch.inputs)
    loss = module._cross_entropy(dropped, batch.targets)
    loss.backward()
    assert float(loss) == pytest.approx(math.log(10_000), abs=0.3)
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert isinstance(text.trees, tuple)
    assert not isinstance(batch, ParseBatch)
