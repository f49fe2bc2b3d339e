"""Triple extraction: training and decoding against sentence by sentence, DGCNN against BiLSTM, memory to predict."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._processes import in_a_process, knows_its_memory, watched
from benchmarks._timing import interleaved, medians, place
from datamodules import TripleDataModule
from datamodules.batches import TripleBatch
from layers.triples import DGCNN, BiLSTM, SequenceConvolution, SequenceEncoder
from lightning_modules import TripleExtractor

BATCH = 64
MEBIBYTE = 1 << 20


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Medians of interleaved rounds over the sample's sentences, on the CPU or the first GPU, in float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = 1 if quick else 4
    data = TripleDataModule(source="sample", batch_size=BATCH, eval_batch_size=BATCH, sample_train_size=BATCH * 10)
    data.setup("fit")
    train = [move(batch, device) for _, batch in zip(range(batches), data.train_dataloader(), strict=False)]
    test = [move(batch, device) for _, batch in zip(range(batches), data.val_dataloader(), strict=False)]
    models = {name: build(data, encoder).to(device) for name, encoder in (("DGCNN", DGCNN), ("BiLSTM", BiLSTM))}
    ours, reference = models["DGCNN"], Reference(models["DGCNN"])
    # Untrained, each finds nearly nothing or nearly everything: as many subjects as there are, for the same work.
    for model in models.values():
        with torch.no_grad():
            model.thresholds.fill_(subject_level(model, test))
    sentences = sum(len(batch.texts) for batch in train), sum(len(batch.texts) for batch in test)
    cases = [
        ("training", partial(training, ours, train), "sentence by sentence", partial(reference.training, train)),
        ("training", partial(training, ours, train), "BiLSTM", partial(training, models["BiLSTM"], train)),
        ("decoding", partial(decoding, ours, test), "sentence by sentence", partial(reference.decoding, test)),
        ("decoding", partial(decoding, ours, test), "BiLSTM", partial(decoding, models["BiLSTM"], test)),
    ]
    rows = []
    for case, mine, peer, theirs in cases:
        count = sentences[case == "decoding"]
        seconds = medians(interleaved({"ours": mine, "peer": theirs}, 1 if quick else 4))
        rows.append(
            {
                "benchmark": "triples",
                "case": f"{case}, DGCNN",
                "peer": peer,
                "ratio": seconds["peer"] / seconds["ours"],
                "ours_sentences_per_second": count / seconds["ours"],
                "peer_sentences_per_second": count / seconds["peer"],
                "device": place(device),
            }
        )
    return rows + memory_rows(quick)


def memory_rows(quick: bool) -> list[dict[str, Any]]:
    """One row: the peak of RssAnon while a file of 1,000 lines is predicted over that of 200,000."""
    if not knows_its_memory():
        return []
    few, many = (100, 400) if quick else (1_000, 200_000)
    code = "from benchmarks import triples; print(triples.peak_of_a_prediction({}))"
    small, large = (in_a_process(code.format(lines)) for lines in (few, many))
    return [
        {
            "benchmark": "triples",
            "case": f"peak of RssAnon, prediction of {many:,} lines",
            "peer": f"of {few:,} lines",
            "ratio": small / large,
            "mebibytes": large / MEBIBYTE,
            "peer_mebibytes": small / MEBIBYTE,
        }
    ]


def peak_of_a_prediction(lines: int) -> int:
    """Bytes of RssAnon at the peak of a prediction from file to file in this process, by a small network."""
    data = TripleDataModule(source="sample", sample_train_size=BATCH, sample_test_size=BATCH, prior=False)
    batches = list(data.val_dataloader())
    model = build(data, partial(DGCNN, size=16, dilations=(1, 2)))
    with torch.no_grad():
        model.thresholds.fill_(subject_level(model, batches))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "sentences.txt")
        with open(source, "w") as file:
            file.writelines(f"{batches[0].texts[number % BATCH]}\n" for number in range(lines))
        with watched("RssAnon") as peak:
            model.predict_file(source, Path(folder, "triples.json"))
    return peak[0]


def build(data: TripleDataModule, encoder: Callable[..., SequenceEncoder]) -> TripleExtractor:
    """A model of this data; by default of the final one's sizes, with distant supervision's features."""
    torch.manual_seed(0)
    links = {name: getattr(data, name) for name in TripleExtractor.data_links}
    return TripleExtractor(encoder=encoder, **links)


def move(batch: TripleBatch, device: torch.device) -> TripleBatch:
    """The batch on a device."""
    return TripleBatch(*(part.to(device) if isinstance(part, Tensor) else part for part in batch))


def training(model: TripleExtractor, batches: list[TripleBatch]) -> None:
    """Forward and backward of each batch."""
    model.train()
    for batch in batches:
        model.zero_grad()
        model.losses(model.encode(batch), batch)["loss"].backward()


@torch.inference_mode()
def decoding(model: TripleExtractor, batches: list[TripleBatch]) -> None:
    """The triples of each batch."""
    model.eval()
    for batch in batches:
        model(batch)


@torch.inference_mode()
def subject_level(model: TripleExtractor, batches: list[TripleBatch]) -> float:
    """The threshold that about two starts a sentence exceed."""
    model.eval()
    starts = torch.cat([model.encode(batch).subjects[..., 0].exp().flatten() for batch in batches])
    return float(starts.sort(descending=True).values[2 * sum(len(batch.texts) for batch in batches)])


class Reference:
    """The formula sentence by sentence, subject by subject, with the model's weights: what the ports of it do.

    Convolutions are torch's; the object head convolves all of its input for each subject; probabilities are multiplied
    as such; spans are paired by loops.

    Args:
        model: whose weights it takes.
    """

    def __init__(self, model: TripleExtractor) -> None:
        self.model = model
        self.device = next(model.parameters()).device

    def training(self, batches: list[TripleBatch]) -> None:
        """Forward and backward of each sentence."""
        self.model.train()
        with self.device:
            for batch in batches:
                self.model.zero_grad()
                for row, length in enumerate((batch.characters > 0).sum(1).tolist()):
                    self._loss(batch, row, length).backward()

    @torch.inference_mode()
    def decoding(self, batches: list[TripleBatch]) -> None:
        """The triples of each sentence."""
        self.model.eval()
        with self.device:
            for batch in batches:
                for row, length in enumerate((batch.characters > 0).sum(1).tolist()):
                    self._triples(batch, row, length)

    def _encode(self, batch: TripleBatch, row: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Encoded characters, the prior features of subjects, and entity and relation probabilities side by side."""
        encoder = self.model.encoder
        x = encoder.embedding(batch.characters[row : row + 1, :length], None, torch.ones(1, 1, 1), encoder.positions)
        for block in encoder.blocks:
            gate, new = self._convolve(block.convolution, x).chunk(2, -1)
            gate = block.dropout(gate).sigmoid()
            x = gate * x + (1 - gate) * new
        prior = torch.zeros(1, length, 2)
        for candidate in batch.candidates[batch.candidates[:, 0] == row].tolist():
            prior[0, candidate[1], 0] = prior[0, candidate[2], 1] = 1
        detectors = self.model.detectors
        entities = detectors.entities(x).sigmoid()
        relations = detectors.relations(x.amax(1)).sigmoid()
        return x, prior, torch.cat([entities, relations.unsqueeze(1).expand(-1, length, -1)], -1)

    @staticmethod
    def _convolve(layer: SequenceConvolution, x: Tensor) -> Tensor:
        weight = layer.weight.view(layer.out_features, 3, -1).permute(0, 2, 1)
        padding = {"padding": layer.dilation, "dilation": layer.dilation}
        return F.conv1d(x.transpose(1, 2), weight, layer.bias, **padding).transpose(1, 2)

    def _subjects(self, x: Tensor, prior: Tensor, factors: Tensor) -> Tensor:
        head = self.model.subject_head
        attended = head.attention(x, torch.ones(*x.shape[:2], 1))
        hidden = self._convolve(head.convolution, torch.cat([x, attended, prior], -1)).relu()
        return head.ends(hidden).sigmoid() * factors[..., :2]

    def _objects(self, batch: TripleBatch, row: int, span: list[int], encoded: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, prior, factors = encoded
        head, length = self.model.object_head, x.shape[1]
        places = torch.arange(length)
        vector = head.span_vector(x, torch.zeros(1, dtype=torch.int64), torch.tensor([span]))
        distances = [self.model.encoder.positions((places - end).abs()) for end in span]
        about = torch.cat(distances, -1).unsqueeze(0) + vector.unsqueeze(1)
        suggested = torch.zeros(1, length, len(self.model.predicates), 2)
        for candidate in batch.candidates[batch.candidates[:, 0] == row].tolist():
            if candidate[1:3] == span:
                suggested[0, candidate[3], candidate[5], 0] = suggested[0, candidate[4], candidate[5], 1] = 1
        attended = head.attention(x, torch.ones(1, length, 1))
        text = self._convolve(head.text_part, torch.cat([x, attended, prior], -1))
        hidden = (text + self._convolve(head.subject_part, torch.cat([about, suggested.flatten(2)], -1))).relu()
        ends = head.ends(hidden).sigmoid().unflatten(-1, (-1, 2)) * head.some(hidden).sigmoid().unsqueeze(-1)
        return ends * factors[..., 2:].unsqueeze(-1) * factors[..., :2].unsqueeze(2)

    def _loss(self, batch: TripleBatch, row: int, length: int) -> Tensor:
        encoded = self._encode(batch, row, length)
        subjects = self._subjects(*encoded)
        target = torch.zeros_like(subjects)
        for _, start, end in batch.subjects[batch.subjects[:, 0] == row].tolist():
            target[0, start, 0] = target[0, end, 1] = 1
        loss = F.binary_cross_entropy(subjects.clamp(1e-7, 1 - 1e-7), target, reduction="sum")
        span = batch.spans[row].tolist()
        if span[0] >= 0:
            objects = self._objects(batch, row, span, encoded)
            target = torch.zeros_like(objects)
            for _, start, end, predicate in batch.objects[batch.objects[:, 0] == row].tolist():
                target[0, start, predicate, 0] = target[0, end, predicate, 1] = 1
            loss = loss + F.binary_cross_entropy(objects.clamp(1e-7, 1 - 1e-7), target, reduction="sum")
        return loss / (batch.characters > 0).sum()

    def _triples(self, batch: TripleBatch, row: int, length: int) -> set[tuple[str, str, str]]:
        encoded = self._encode(batch, row, length)
        limits = self.model.thresholds.tolist()
        text = batch.texts[int(batch.sentences[row])]
        found = set()
        for start, end in self._pairs(self._subjects(*encoded)[0], *limits[:2]):
            objects = self._objects(batch, row, [start, end], encoded)[0]
            for number, predicate in enumerate(self.model.predicates):
                for begin, finish in self._pairs(objects[:, number], *limits[2:]):
                    found.add((text[start : end + 1], predicate, text[begin : finish + 1]))
        return found

    @staticmethod
    def _pairs(probabilities: Tensor, low: float, high: float) -> list[tuple[int, int]]:
        starts = (probabilities[:, 0] > low).nonzero().flatten().tolist()
        ends = (probabilities[:, 1] > high).nonzero().flatten().tolist()
        return [(start, min(end for end in ends if end >= start)) for start in starts if any(e >= start for e in ends)]
