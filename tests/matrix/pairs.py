"""The table of the matrix: every module with every datamodule that fits it, tiny enough for a run to take a second."""

from dataclasses import dataclass, field
from typing import Any

Part = tuple[str, dict[str, Any]]

IMAGES = {"sample_train_size": 60, "sample_test_size": 21, "memory_size": 20, "batch_size": 8, "eval_batch_size": 8}
IMAGES |= {"image_size": 8}
WORDS = {"sample_train_size": 60, "sample_test_size": 12, "batch_size": 2, "eval_batch_size": 2, "bptt": 12}
CHARACTERS = {**WORDS, "level": "character", "sample_train_size": 30}
FORMULAS = {"sample_train_size": 60, "sample_test_size": 21, "batch_size": 8, "eval_batch_size": 8, "max_operations": 7}
SENTENCES = {"sample_train_size": 80, "sample_test_size": 15, "batch_size": 8, "eval_batch_size": 4, "max_length": 60}
GRAPH = {"sample_num_nodes": 60, "sample_num_communities": 4, "steps_per_epoch": 4}
WORD_GRAPH = {"sample_num_words": 80, "sample_num_clusters": 4, "num_neighbors": 6}

BLOG_ENCODER = {"class_path": "BlogEncoder", "init_args": {"channels": 8, "code_size": 6}}
DETERMINISTIC_ENCODER = {"class_path": "BlogEncoder", "init_args": {"channels": 8, "code_size": 6, "stochastic": False}}
ON_LSTM = {"class_path": "ONLSTM", "init_args": {"chunk_size": 4, "dropconnect": 0.1}}
GRAPH_SAGE = {"class_path": "GraphSAGE", "init_args": {"hidden_size": 8}}
GCN = {"class_path": "GCN", "init_args": {"hidden_size": 8}}
DGCNN = {"class_path": "DGCNN", "init_args": {"size": 12, "dilations": [1, 2]}}
LANGUAGE_MODEL = {"embedding_size": 8, "hidden_size": 12, "num_layers": 2, "lr": 0.1}
LANGUAGE_MODEL |= {"embedding_range": 1.0}
TRANSFORMER = {"embed_dim": 8, "num_heads": 2, "num_layers": 2, "feedforward_size": 12, "dropout": 0.1}
# What turns off the random draws of a training step, for the comparison of one process with two.
NO_DROPOUT = {
    "input_dropout": 0.0,
    "word_dropout": 0.0,
    "layer_dropout": 0.0,
    "output_dropout": 0.0,
}


@dataclass(frozen=True)
class Pair:
    """A row of the table.

    Args:
        name: of the test.
        model: the class of the module and its arguments.
        data: the class of the datamodule and its arguments besides ``source: sample``.
        embeddings: parameters that lazy updates act on; for a module without embeddings, its weights.
        still: arguments of the module that make a training step deterministic.
        coupled: the loss depends on a batch as a whole (batch normalisation, other images as negatives, a mean over
            characters): two processes equal one that averages over the two halves of the batch.
        by_batch: evaluation metrics that depend on which items share a batch, and so on the number of processes.
        overfits: learning rate, steps, and the factor by which the loss of one batch falls.
        predicts: the extension of the file that ``predict.py`` writes; or the line that says why it doesn't.
        options: of ``predict.py``.
        trainable: whether there is anything to differentiate.
        batches: per epoch.
        needs: name of the pair whose checkpoint this one starts from.
    """

    name: str
    model: Part
    data: Part
    embeddings: str = "weight"
    still: dict[str, Any] = field(default_factory=dict)
    coupled: bool = False
    by_batch: str = ""
    overfits: tuple[float, int, float] = (1e-2, 60, 0.5)
    predicts: str = ".npz"
    options: tuple[str, ...] = ()
    trainable: bool = True
    batches: int = 4
    needs: str = ""

    @property
    def epochs(self) -> int:
        return 2 if self.batches > 1 else 6

    @property
    def killed_after(self) -> int:
        """Batches until the kill: inside an epoch (if it has several) and inside a window of two."""
        return self.batches + 3 if self.batches > 1 else 3


PAIRS = [
    Pair(
        "infomax-images",
        (
            "DeepInfoMax",
            {"encoder": BLOG_ENCODER, "score": {"class_path": "ConcatScore", "init_args": {"hidden_size": 6}}},
        ),
        ("ImageDataModule", {**IMAGES, "augment": True}),
        still={
            "encoder": DETERMINISTIC_ENCODER,
            "prior": {"class_path": "AdversarialPrior"},
            "prior_weight": 0.0,
            "negatives": {"class_path": "AllPairs"},
        },
        coupled=True,
        by_batch="val/.*(loss|mi)",
        overfits=(1e-2, 60, 0.85),
    ),
    Pair(
        "on_lstm-words",
        ("ONLSTMLanguageModel", {"cell": ON_LSTM, **LANGUAGE_MODEL}),
        ("TextDataModule", WORDS),
        embeddings="embedding",
        still={"cell": {**ON_LSTM, "init_args": {"chunk_size": 4}}, **NO_DROPOUT},
        overfits=(3e-2, 60, 0.5),
        predicts=".txt",
        options=("--layer=1",),
    ),
    Pair(
        "on_lstm-characters",
        ("ONLSTMLanguageModel", {"cell": ON_LSTM, **LANGUAGE_MODEL}),
        ("TextDataModule", CHARACTERS),
        embeddings="embedding",
        still={"cell": {**ON_LSTM, "init_args": {"chunk_size": 4}}, **NO_DROPOUT},
        overfits=(3e-2, 60, 0.5),
        predicts="this model has no trees: ONLSTM, level character",
    ),
    Pair(
        "lstm-words",
        ("ONLSTMLanguageModel", {"cell": {"class_path": "LSTM"}, **LANGUAGE_MODEL}),
        ("TextDataModule", WORDS),
        embeddings="embedding",
        still=NO_DROPOUT,
        overfits=(3e-2, 60, 0.5),
        predicts="this model has no trees: LSTM, level word",
    ),
    Pair(
        "classifier-formulas",
        ("SentencePairClassifier", {"cell": ON_LSTM, "embedding_size": 8, "hidden_size": 12, "units": 8}),
        ("LogicalInferenceDataModule", FORMULAS),
        embeddings="embedding",
        still={"cell": {**ON_LSTM, "init_args": {"chunk_size": 4}}, "dropout": 0.0},
        predicts=".tsv",
    ),
    Pair(
        "triples-sentences",
        ("TripleExtractor", {"encoder": DGCNN}),
        ("TripleDataModule", SENTENCES),
        embeddings="embedding",
        still={"encoder": {**DGCNN, "init_args": {**DGCNN["init_args"], "dropout": 0.0, "gate_dropout": 0.0}}},
        coupled=True,
        by_batch="val/.*loss",
        predicts=".json",
    ),
    Pair(
        "infomap-edges",
        ("InfomapClustering", {}),
        ("EdgeListDataModule", GRAPH),
        trainable=False,
        predicts=".tree",
    ),
    Pair(
        "infomap-words",
        ("InfomapClustering", {"two_level": True}),
        ("WordVectorDataModule", WORD_GRAPH),
        batches=1,
        trainable=False,
        predicts=".clu",
    ),
    Pair(
        "neuromap-edges",
        ("Neuromap", {"network": GRAPH_SAGE, "num_clusters": 6}),
        ("EdgeListDataModule", GRAPH),
        still={"network": {"class_path": "GraphSAGE", "init_args": {"hidden_size": 8, "dropout": 0.0}}},
        overfits=(1e-2, 60, 0.9),
        predicts=".csv",
    ),
    Pair(
        "neuromap-words",
        ("Neuromap", {"network": GCN, "num_clusters": 6}),
        ("WordVectorDataModule", WORD_GRAPH),
        still={"network": {"class_path": "GCN", "init_args": {"hidden_size": 8, "dropout": 0.0}}},
        overfits=(1e-2, 60, 0.7),
        batches=1,
        predicts=".csv",
    ),
    Pair(
        "transformer-copies",
        (
            "SparseTransformer",
            {"attention": {"class_path": "SparseAttention", "init_args": {"rate": 4}}, **TRANSFORMER},
        ),
        (
            "CopyTaskDataModule",
            {"length": 4, "distance": 13, "num_symbols": 5, "batch_size": 4, "eval_batch_size": 4}
            | {"sample_train_size": 40, "sample_test_size": 11},
        ),
        embeddings="embedding",
        still={"dropout": 0.0},
        predicts=".txt",
        options=("--length=5",),
    ),
    Pair(
        "transformer-characters",
        ("SparseTransformer", {"attention": "LocalAttention", "positions": "rotary", **TRANSFORMER}),
        ("TextDataModule", {**CHARACTERS, "order": "random"}),
        embeddings="embedding",
        still={"dropout": 0.0},
        predicts=".txt",
        options=("--length=5",),
    ),
    Pair(
        "transformer-images",
        ("SparseTransformer", {"attention": "FixedAttention", **TRANSFORMER}),
        ("ImageDataModule", {**IMAGES, "image_size": 4, "batch_size": 4}),
        embeddings="embedding",
        still={"dropout": 0.0},
    ),
    Pair(
        "autoencoder-images",
        (
            "AutoEncoder",
            {"encoder": BLOG_ENCODER, "decoder": {"class_path": "ConvolutionalDecoder", "init_args": {"channels": 8}}},
        ),
        ("ImageDataModule", IMAGES),
        still={"encoder": DETERMINISTIC_ENCODER},
        coupled=True,
    ),
    Pair(
        "probe-images",
        ("FeatureProbe", {"cut": "encoder.mean", "head_lr": 1e-3}),
        ("ImageDataModule", IMAGES),
        coupled=True,
        predicts=".csv",
        needs="infomax-images",
    ),
]
