import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from datamodules import CopyTaskDataModule, ImageDataModule, TextDataModule
from datamodules.batches import ImageBatch, TokenBatch
from experiment.errors import run_main
from experiment.train import train
from layers.attention import AtrousAttention, FixedAttention, FullAttention, LocalAttention, SparseAttention
from layers.transformers.positions import bytes_of_images
from lightning_modules import SparseTransformer
from tests.conftest import ROOT
from tests.tools import quiet_trainer

PATTERNS = {
    "full": FullAttention,
    "atrous": partial(AtrousAttention, rate=3),
    "local": partial(LocalAttention, window=3),
    "dilated": partial(LocalAttention, window=2, dilation=2),
    "sparse": partial(SparseAttention, rate=4),
    "fixed": partial(FixedAttention, block=4, summary=1),
    "in turn": [partial(LocalAttention, window=3), partial(AtrousAttention, rate=4)],
}
TINY = {"embed_dim": 16, "num_heads": 2, "num_layers": 2, "feedforward_size": 24}


def token_model(attention=PATTERNS["sparse"], **changes) -> SparseTransformer:
    torch.manual_seed(0)
    model = SparseTransformer(attention, **{**TINY, "vocab_size": 11, "sequence_length": 30, **changes})
    return with_life(model)


def image_model(attention=PATTERNS["sparse"], **changes) -> SparseTransformer:
    torch.manual_seed(0)
    return with_life(SparseTransformer(attention, **{**TINY, "image_size": 4, **changes}))


def with_life(model: SparseTransformer) -> SparseTransformer:
    """Makes the weights large enough for every term to matter; initially the logits are 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


def mute(model: SparseTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "log", lambda *_, **__: None)


def logits_by_hand(model: SparseTransformer, x: torch.Tensor, allowed) -> torch.Tensor:
    """The network on embedded tokens x (T, d), one query and head at a time; ``allowed(layer, i, j)``."""
    network = model.network
    heads, size = 2, x.shape[1] // 2
    for layer, block in enumerate(network.blocks):
        normed = F.layer_norm(x, (x.shape[1],), block.attention_norm.weight, block.attention_norm.bias)
        q, k, v = (normed @ block.attention.in_proj_weight.T + block.attention.in_proj_bias).chunk(3, dim=1)
        attended = torch.zeros_like(x)
        for i in range(len(x)):
            keys = [j for j in range(i + 1) if allowed(layer, i, j)]
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                weights = torch.softmax(k[keys, part] @ q[i, part] / size**0.5, 0)
                attended[i, part] = weights @ v[keys, part]
        x = x + attended @ block.attention.out_proj.weight.T + block.attention.out_proj.bias
        normed = F.layer_norm(x, (x.shape[1],), block.feedforward_norm.weight, block.feedforward_norm.bias)
        first, _, second = block.feedforward
        inner = normed @ first.weight.T + first.bias
        x = x + (inner / (1 + torch.exp(-1.702 * inner))) @ second.weight.T + second.bias
    x = F.layer_norm(x, (x.shape[1],), network.norm.weight, network.norm.bias)
    return x @ network.output.weight.T + network.output.bias


def test_the_loss_of_tokens_equals_its_formula(monkeypatch):
    model = token_model(PATTERNS["in turn"])
    mute(model, monkeypatch)
    inputs = torch.randint(11, (2, 13))
    targets = torch.randint(11, (2, 13))
    targets[0, :5] = -100
    loss = model.training_step(TokenBatch(inputs, targets), 0)

    def allowed(layer: int, i: int, j: int) -> bool:
        return i - j <= 3 if layer == 0 else (i - j) % 4 == 0

    total, count = 0.0, 0
    for row in range(2):
        x = model.network.embedding.weight[inputs[row]] + model.network.positions.table.weight[:13]
        logits = logits_by_hand(model, x, allowed)
        for place in range(13):
            if targets[row, place] >= 0:
                total = total - torch.log_softmax(logits[place], 0)[targets[row, place]]
                count += 1
    torch.testing.assert_close(loss, total / count, rtol=1e-5, atol=1e-5)


def test_the_loss_of_images_equals_its_formula(monkeypatch):
    model = image_model(pixel_range=(-1.0, 1.0))
    mute(model, monkeypatch)
    pixels = torch.randint(256, (1, 4, 4, 3))
    images = pixels.permute(0, 3, 1, 2) / 127.5 - 1
    loss = model.training_step(ImageBatch(images, torch.tensor([0])), 0)
    values = pixels.flatten()
    network, positions = model.network, model.network.positions
    rows = []
    for place in range(48):
        before = network.start if place == 0 else network.embedding.weight[values[place - 1]]
        row, column, colour = place // 12, place // 3 % 4, place % 3
        where = positions.rows.weight[row] + positions.columns.weight[column] + positions.colours.weight[colour]
        rows.append(before + where)
    logits = logits_by_hand(model, torch.stack(rows), lambda _, i, j: i - j <= 4 or (i - j) % 4 == 0)
    expected = -torch.log_softmax(logits, 1)[torch.arange(48), values].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PATTERNS)
def test_no_token_depends_on_later_ones(name):
    model = token_model(PATTERNS[name]).eval()
    tokens = torch.randint(11, (1, 17))
    logits = model(tokens)
    for place in range(1, 17):
        changed = tokens.clone()
        changed[:, place:] = (changed[:, place:] + 1) % 11
        torch.testing.assert_close(model(changed)[:, :place], logits[:, :place])
        assert not torch.equal(model(changed)[:, place], logits[:, place])


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
def test_decoding_is_the_forward_pass(name, positions):
    model = token_model(PATTERNS[name], positions=positions).eval()
    assert [block.attention.rotary for block in model.network.blocks] == [positions == "rotary"] * 2
    assert (model.network.positions is None) == (positions != "learned")
    tokens = torch.randint(11, (3, 20))
    state = model.network.init_state(3, 20)
    with torch.no_grad():
        steps = torch.stack([model.network.step(tokens[:, place], state) for place in range(20)], 1)
        torch.testing.assert_close(steps, model(tokens), rtol=1e-4, atol=1e-5)

    prompts, lengths = tokens[:, :6], torch.tensor([6, 3, 4])
    written = model.generate(prompts, 9, lengths=lengths, temperature=0)
    for row, length in enumerate(lengths.tolist()):
        expected = prompts[row, :length]
        for _ in range(9):
            with torch.no_grad():
                expected = torch.cat([expected, model(expected[None])[0, -1].argmax().view(1)])
        assert torch.equal(written[row, : length + 9], expected)


def test_images_are_completed_from_their_upper_half():
    model = image_model(pixel_range=(0.0, 1.0)).eval()
    images = torch.rand(2, 3, 4, 4).mul(255).round().div(255)
    completed = model.complete_images(images, temperature=0)
    torch.testing.assert_close(completed[:, :, :2], images[:, :, :2])
    values = bytes_of_images(images, (0.0, 1.0))[:, :24]
    with torch.no_grad():
        while values.shape[1] < 48:
            values = torch.cat([values, model(values)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(bytes_of_images(completed, (0.0, 1.0)), values)
    again = [model.complete_images(images, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_tokens_are_sampled_by_their_probabilities():
    model = token_model().eval()
    prompt = torch.randint(11, (1, 5))
    with torch.no_grad():
        logits = model(prompt)[0, -1]
    rows = prompt.expand(20_000, 5)
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 3)):
        drawn = model.generate(rows, 1, temperature=temperature, top_k=top_k)[:, 5]
        expected = torch.softmax(logits / temperature, 0)
        if top_k:
            expected[logits.argsort(descending=True)[top_k:]] = 0
        frequencies = torch.bincount(drawn, minlength=11) / 20_000
        torch.testing.assert_close(frequencies, expected / expected.sum(), rtol=0, atol=0.02)


@pytest.mark.parametrize("tie_embedding", [False, True])
def test_weights_start_as_in_the_paper(tie_embedding):
    torch.manual_seed(0)
    model = SparseTransformer(
        embed_dim=128, num_heads=2, num_layers=8, feedforward_size=256, vocab_size=300, tie_embedding=tie_embedding
    )
    network = model.network
    assert network.embedding.weight.std().item() == pytest.approx(0.125 / 128**0.5, rel=0.03)
    for block in network.blocks:
        first, _, second = block.feedforward
        attention = block.attention
        assert attention.in_proj_weight.std().item() == pytest.approx(0.125 / 128**0.5, rel=0.03)
        assert first.weight.std().item() == pytest.approx(0.125 / 128**0.5, rel=0.03)
        assert attention.out_proj.weight.std().item() == pytest.approx(0.125 / 128**0.5 / 16**0.5, rel=0.03)
        assert second.weight.std().item() == pytest.approx(0.125 / 256**0.5 / 16**0.5, rel=0.03)
        for bias in (attention.in_proj_bias, attention.out_proj.bias, first.bias, second.bias):
            assert not bias.any()
    logits = model(torch.randint(300, (1, 10)))
    names = dict(model.named_parameters())
    assert ("network.output.weight" in names) is not tie_embedding
    if tie_embedding:
        assert network.output.embedding is network.embedding
    else:
        assert not logits.any()


def test_checkpointed_activations_give_the_same_gradients(monkeypatch):
    gradients = []
    batch = TokenBatch(torch.randint(11, (2, 20)), torch.randint(11, (2, 20)))
    for checkpointing in (False, True):
        model = token_model(dropout=0.3, activation_checkpointing=checkpointing).train()
        mute(model, monkeypatch)
        torch.manual_seed(5)
        model.training_step(batch, 0).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_dropout_is_in_the_residual_branches_only():
    model = token_model(dropout=1.0).train()
    tokens = torch.randint(11, (1, 8))
    network = model.network
    x = network.embedding(tokens) + network.positions(torch.arange(8))
    torch.testing.assert_close(model(tokens), network.output(network.norm(x)))


def test_layers_take_the_patterns_cyclically():
    model = token_model(PATTERNS["in turn"], num_layers=5)
    names = [type(block.attention).__name__ for block in model.network.blocks]
    assert names == ["LocalAttention", "AtrousAttention", "LocalAttention", "AtrousAttention", "LocalAttention"]


def test_half_precision_is_near(monkeypatch):
    model = token_model()
    batch = TokenBatch(torch.randint(11, (2, 20)), torch.randint(11, (2, 20)))
    mute(model, monkeypatch)
    exact = model.training_step(batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        near = model.training_step(batch, 0)
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.03)


# ------------------------------------------------------------------------------------------- with data and trainer


def text(**changes) -> TextDataModule:
    sizes = {"sample_train_size": 40, "sample_test_size": 10, "batch_size": 2, "bptt": 30, "order": "random"}
    return TextDataModule(source="sample", **{"level": "character", **sizes, **changes})


def text_model(data: TextDataModule, **changes) -> SparseTransformer:
    linked = {"vocabulary": data.vocabulary, "level": data.level, "vocab_size": data.vocab_size}
    return token_model(sequence_length=data.sequence_length, **linked, **changes)


def test_text_is_measured_over_every_character():
    data = text()
    model = text_model(data).eval()
    (tested,) = quiet_trainer().test(model, data, verbose=False)
    tokens = data.corpus.texts["test"].long()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, 30):
            part = tokens[start : start + 31]
            total += F.cross_entropy(model(part[None, :-1])[0], part[1:], reduction="sum").item()
    assert tested["test/loss"] == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    assert tested["test/bits_per_character"] == pytest.approx(tested["test/loss"] / math.log(2))
    assert set(tested) == {"test/loss", "test/bits_per_character"}


def test_words_have_a_perplexity_and_trees_are_ignored():
    data = text(level="word")
    results = quiet_trainer().test(text_model(data), data, verbose=False)
    tested = {name.split("/dataloader_idx")[0]: value for result in results for name, value in result.items()}
    assert tested["test/perplexity"] == pytest.approx(math.exp(tested["test/loss"]), rel=1e-4)


def test_copies_are_counted():
    data = CopyTaskDataModule(
        length=4, distance=9, num_symbols=10, sample_train_size=8, sample_test_size=30, eval_batch_size=7
    )
    model = token_model(sequence_length=data.sequence_length).eval()
    (tested,) = quiet_trainer().test(model, data, verbose=False)
    hits = []
    with torch.no_grad():
        for batch in data.test_dataloader():
            found = model(batch.inputs).argmax(-1)
            hits += (found == batch.targets)[batch.targets >= 0].tolist()
    assert len(hits) == 30 * 4
    assert tested["test/accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert set(tested) == {"test/loss", "test/accuracy"}


def images(**changes) -> ImageDataModule:
    sizes = {"sample_train_size": 12, "sample_test_size": 6, "batch_size": 4, "eval_batch_size": 4, "memory_size": 1}
    return ImageDataModule(source="sample", **{"image_size": 4, **sizes, **changes})


def test_images_are_measured_in_bits_and_the_memory_is_ignored():
    data = images()
    model = image_model().eval()
    results = quiet_trainer().test(model, data, verbose=False)
    tested = {name.split("/dataloader_idx")[0]: value for result in results for name, value in result.items()}
    values = torch.from_numpy(data._arrays.images[12:].copy()).flatten(1).long()
    with torch.no_grad():
        loss = F.cross_entropy(model(values[:, :-1]).flatten(0, 1), values.flatten())
    assert tested["test/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert tested["test/bits_per_dim"] == pytest.approx(loss.item() / math.log(2), rel=1e-5)
    assert set(tested) == {"test/loss", "test/bits_per_dim"}


@pytest.mark.parametrize(
    ("attention", "solves"),
    [(partial(SparseAttention, rate=8), True), (partial(LocalAttention, window=16), False)],
    ids=["sparse", "local"],
)
def test_sparse_attention_copies_from_beyond_a_window(attention, solves):
    data = CopyTaskDataModule(
        length=4, distance=41, num_symbols=8, batch_size=16, sample_train_size=2400, sample_test_size=100
    )
    pl.seed_everything(1)
    linked = {"vocab_size": data.vocab_size, "sequence_length": data.sequence_length}
    sizes = {"embed_dim": 32, "num_heads": 2, "num_layers": 2, "feedforward_size": 64}
    model = SparseTransformer(attention, **sizes, lr=1e-2, **linked)
    run = quiet_trainer(gradient_clip_val=1.0, limit_val_batches=0)
    run.fit(model, data)
    (tested,) = run.test(model, data, verbose=False)
    assert tested["test/accuracy"] > 0.95 if solves else tested["test/accuracy"] < 0.25


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], [("SparseAttention", {"rate": 16})]),
        (["--model.attention.rate=5"], [("SparseAttention", {"rate": 5})]),
        (["--model.attention=LocalAttention", "--model.attention.window=5"], [("LocalAttention", {"window": 5})]),
        (["-c", "in_turn.yaml"], [("LocalAttention", {"window": 8}), ("AtrousAttention", {"rate": 7})]),
    ],
    ids=["of the file", "argument", "class", "list"],
)
def test_the_attention_slot_takes_a_class_or_a_list(given, expected, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    layers = (
        "[{class_path: LocalAttention, init_args: {window: 8}}, {class_path: AtrousAttention, init_args: {rate: 7}}]"
    )
    Path("in_turn.yaml").write_text(f"model: {{init_args: {{attention: {layers}}}}}\n")
    config = ROOT / "configs" / "sparse_transformer_sample.yaml"
    assert run_main(train, ["-c", str(config), *given, "--print_config"]) == 0
    printed = yaml.safe_load(capfd.readouterr().out)["model"]["init_args"]["attention"]
    printed = printed if isinstance(printed, list) else [printed]
    assert len(printed) == len(expected)
    for part, (name, arguments) in zip(printed, expected, strict=True):
        assert part["class_path"].endswith(name)
        assert arguments.items() <= part["init_args"].items()


# ---------------------------------------------------------------------------------------------------- prediction


def test_each_line_of_a_file_is_continued(tmp_path):
    data = text()
    model = text_model(data)
    (tmp_path / "prompts.txt").write_text("the\n\na €\n", encoding="utf-8")
    report = model.predict_file(tmp_path / "prompts.txt", tmp_path / "out.txt", length=8, temperature=0, batch_size=2)
    assert "2 prompts (1 tokens unknown), 8 tokens added" in report
    lines = (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")
    index = {token: i for i, token in enumerate(data.vocabulary)}
    assert lines[1] == "" == model.generate("")  # nothing of nothing
    for prompt, line in zip(("the", "a €"), lines[::2], strict=False):
        tokens = [index["<eos>"], *(index.get(character, index["<unk>"]) for character in prompt)]
        expected = model.generate(torch.tensor([tokens]), 8, temperature=0)[0, len(tokens) :]
        assert line == prompt + "".join(data.vocabulary[token] for token in expected)
        assert model.generate(prompt, 8, temperature=0) == line.replace("<eos>", "\n")
    assert model.generate(["a", "", "the"], 3, top_k=2, seed=1)[1] == ""


@pytest.mark.parametrize("level", ["word", "character", "byte"])
@pytest.mark.parametrize("drawing", [{"temperature": 0}, {"temperature": 0.5}, {"top_k": 1}])
def test_nothing_is_continued_by_unknown_tokens(level, drawing, tmp_path):
    data = text(level=level)
    model = text_model(data)
    unknown = data.vocabulary.index("<unk>")
    with torch.no_grad():
        model.network.output.bias[unknown] = 100.0
    tokens = model.generate(torch.tensor([[unknown, 3]]), 9, **drawing)
    assert tokens[0, 0] == unknown
    assert not (tokens[0, 1:] == unknown).any()
    (tmp_path / "in.txt").write_text("the\n")
    model.predict_file(tmp_path / "in.txt", tmp_path / "out.txt", length=9, **drawing)
    for written in (model.generate("the", 9, **drawing), (tmp_path / "out.txt").read_text()):
        assert "<unk>" not in written
        assert "?" not in written  # what it is among bytes


def test_unknown_tokens_are_drawn_where_there_is_no_other():
    model = token_model(vocabulary=["<unk>"], vocab_size=1)
    assert model.generate(torch.zeros(1, 2, dtype=torch.long), 3).tolist() == [[0] * 5]


def test_sequences_of_numbers_are_continued_and_others_refused(tmp_path):
    model = token_model()
    prompts, output = tmp_path / "prompts.txt", tmp_path / "out.txt"
    prompts.write_text("1 2 3\n10\n")
    model.predict_file(prompts, output, length=5)
    lines = output.read_text().splitlines()
    assert [len(line.split()) for line in lines] == [8, 6]
    assert lines[0].startswith("1 2 3 ")
    for wrong, message in (
        ("1 2\n3 11\n", "prompts.txt, line 2 has '11': write tokens as numbers from 0 to 10"),
        ("1\n" + "1" * 5000 + "\n", "prompts.txt, line 2 has '1{40}': write tokens as numbers from 0 to 10"),
    ):
        prompts.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            model.predict_file(prompts, output, length=5)


def test_too_long_a_continuation_names_the_longest_possible(tmp_path):
    (tmp_path / "prompts.txt").write_text("1\n1 2 3\n")
    with pytest.raises(ValueError, match=r"30 positions and .*prompts.txt, line 2, takes 3 of them; .* at most 28"):
        token_model().predict_file(tmp_path / "prompts.txt", tmp_path / "out.txt", length=29)
    token_model().predict_file(tmp_path / "prompts.txt", tmp_path / "out.txt", length=28)


def test_a_folder_of_images_is_completed(tmp_path):
    model = image_model().eval()
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    model.predict_file(folder, tmp_path / "out.npz", batch_size=2)
    arrays = np.load(tmp_path / "out.npz")
    assert arrays["names"].tolist() == ["0.png", "1.png", "2.png"]
    assert np.array_equal(arrays["images"], pixels)
    assert np.array_equal(arrays["completed"][:, :2], pixels[:, :2])
    assert not np.array_equal(arrays["completed"][:, 2:], pixels[:, 2:])

    model.predict_file(folder, tmp_path / "out.png", batch_size=2)
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    assert picture.shape == (3 * 96 + 4, 3 * 96 + 4, 3)
    assert np.array_equal(picture[:96:24, :96:24], pixels[0])
    assert (picture[48:96, 98:194] == 255).all(), "the missing half is white"
    assert np.array_equal(picture[:96:24, 196::24], arrays["completed"][0])
    with pytest.raises(ValueError, match=r"must end in \.png or \.npz"):
        model.predict_file(folder, tmp_path / "out.jpg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, r"num_layers \(0\) must be at least 1"),
        ({"attention": []}, "empty list"),
        ({"num_heads": 3}, r"num_heads \(3\) must divide embed_dim \(16\)"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        token_model(**arguments)


def test_generation_refuses_what_it_cannot_do():
    model = token_model()
    with pytest.raises(ValueError, match="an empty prompt"):
        model.generate(torch.zeros(1, 0, dtype=torch.long), 3)
    with pytest.raises(ValueError, match=r"temperature \(-1\)"):
        model.generate(torch.zeros(1, 1, dtype=torch.long), 3, temperature=-1)
    with pytest.raises(ValueError, match=r"top_k \(0\)"):
        model.generate(torch.zeros(1, 1, dtype=torch.long), 3, top_k=0)
    with pytest.raises(ValueError, match="a sequence of 31 tokens is longer than the 30 positions"):
        model(torch.zeros(1, 31, dtype=torch.long))
    with pytest.raises(ValueError, match="trained on text"):
        model.complete_images(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"^count \(0\) must be at least 1"):
        text_model(text()).generate("the", 0)


def test_a_prompt_that_ends_in_a_blank_gets_no_other():
    model = text_model(text(level="word"))
    written = model.generate("the ", 5, temperature=0)
    assert written == "the " + model.generate("the", 5, temperature=0).removeprefix("the ")
    assert written[4] != " "
    assert model.generate("\n\n", 5, temperature=0).startswith("\n\n")
    assert len(model.generate("\n\n", 5, temperature=0)) > 2
    assert model.generate(" ") == ""
