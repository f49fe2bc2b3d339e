"""The probes against scikit-learn, brute force and literal loops; the metric in one process and in two."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from metrics import RepresentationQuality, probes
from metrics.probes import knn_accuracy, linear_probe_accuracy, mlp_probe_accuracy, nearest_neighbors
from tests.tools import in_two_processes

# A process's first optimizer sets an environment variable of torch; within a test it would look like a leak.
torch.optim.SGD([nn.Parameter(torch.zeros(1))])

PROBES = (knn_accuracy, linear_probe_accuracy, mlp_probe_accuracy)
KEYS = {"knn_accuracy", "linear_probe_accuracy", "mlp_probe_accuracy"}


def blobs(samples: int, features: int, classes: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian clouds about one centre per class, with features of very different mean and scale."""
    generator = torch.Generator().manual_seed(1234)
    centres = torch.randn(classes, features, generator=generator)
    scales = torch.logspace(-2, 2, features)
    generator.manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    x = centres[labels] + noise * torch.randn(samples, features, generator=generator)
    return x * scales + 3 * scales, labels


def circles(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """A disc inside a ring: a line can't separate them, a hidden layer can."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (samples,), generator=generator)
    radius = 1 + labels + 0.2 * torch.randn(samples, generator=generator)
    angle = 2 * torch.pi * torch.rand(samples, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), labels


@pytest.fixture
def clouds() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *blobs(700, 24, 5, 2.0, seed=1), *blobs(301, 24, 5, 2.0, seed=2)


def test_nearest_neighbors_are_those_of_a_full_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    memory, queries = (torch.randn(n, 7, generator=generator) * 5 for n in (83, 29))
    similarities, indices = nearest_neighbors(memory, queries, k=9, chunk_size=10)
    a, b = queries.double().numpy(), memory.double().numpy()
    cosines = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    expected = np.argsort(-cosines, axis=1)[:, :9]
    np.testing.assert_array_equal(indices.numpy(), expected)
    np.testing.assert_allclose(similarities.numpy(), np.take_along_axis(cosines, expected, 1), atol=1e-6)


@pytest.mark.parametrize("k", [0, 6])
def test_nearest_neighbors_refuses_more_neighbours_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.5"):
        nearest_neighbors(torch.ones(5, 2), torch.ones(1, 2), k=k)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_knn_agrees_with_scikit_learn_for_two_classes_and_odd_k(k: int) -> None:
    # An odd number of votes for two classes: there are no ties.
    memory, memory_labels = blobs(400, 16, 2, 3.0, seed=1)
    queries, query_labels = blobs(200, 16, 2, 3.0, seed=2)
    neighbors = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    peer = neighbors.fit(memory.double().numpy(), memory_labels.numpy())
    expected = peer.score(queries.double().numpy(), query_labels.numpy())
    assert 0.5 < expected < 1
    assert knn_accuracy(memory, memory_labels, queries, query_labels, k=k) == pytest.approx(expected)


def test_knn_agrees_with_a_loop_that_breaks_ties_by_similarity(clouds) -> None:
    memory, memory_labels, queries, query_labels = clouds
    ties = right = 0
    for query, label in zip(queries.double(), query_labels.tolist(), strict=True):
        cosines = F.cosine_similarity(query[None], memory.double())
        nearest = cosines.argsort(descending=True)[:4].tolist()
        votes: dict[int, tuple[int, float]] = {}
        for place in nearest:
            count, weight = votes.get(int(memory_labels[place]), (0, 0.0))
            votes[int(memory_labels[place])] = (count + 1, weight + float(cosines[place]))
        most = max(count for count, _ in votes.values())
        ties += sum(count == most for count, _ in votes.values()) > 1
        right += max(votes, key=votes.get) == label
    assert ties > 20
    assert knn_accuracy(*clouds, k=4) == pytest.approx(right / len(queries))


def test_knn_of_a_case_worked_by_hand() -> None:
    memory = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.1, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    queries = torch.tensor([[5.0, 1.0], [0.2, 9.0], [-4.0, 0.1], [-4.0, 0.1]])
    assert knn_accuracy(memory, labels, queries, torch.tensor([0, 1, 2, 0]), k=1) == 0.75
    # k = 2, query (5, 1): one vote each for class 0 (cosine 0.98) and class 1 (cosine 0.29): the nearer class wins.
    assert knn_accuracy(memory, labels, queries[:1], torch.tensor([0]), k=2) == 1
    # Three votes: class 1 has two of them, although class 0 is nearest.
    assert knn_accuracy(memory, labels, queries[:1], torch.tensor([1]), k=3) == 1


@pytest.mark.parametrize("chunk_size", [37, 300, 100_000])
def test_knn_does_not_depend_on_the_chunk_size(clouds, chunk_size: int) -> None:
    assert knn_accuracy(*clouds, k=7, chunk_size=chunk_size) == knn_accuracy(*clouds, k=7)


def test_linear_probe_does_not_depend_on_the_chunk_size(clouds) -> None:
    assert linear_probe_accuracy(*clouds, chunk_size=300) == pytest.approx(linear_probe_accuracy(*clouds), abs=0.004)


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_linear_probe_agrees_with_scikit_learn(clouds, l2: float) -> None:
    memory, memory_labels, queries, query_labels = (part.double().numpy() for part in clouds)
    mean, std = memory.mean(0), memory.std(0)
    peer = LogisticRegression(C=1 / (l2 * len(memory)), max_iter=5000, tol=1e-8)
    peer.fit((memory - mean) / std, memory_labels)
    expected = peer.score((queries - mean) / std, query_labels)
    assert 0.5 < expected < 1
    # Within one query of 301: fp32 and fp64 may differ on one at the boundary.
    assert linear_probe_accuracy(*clouds, l2=l2, max_iterations=500) == pytest.approx(expected, abs=1 / 300)


def test_a_constant_feature_is_ignored_by_a_probe(clouds) -> None:
    memory, memory_labels, queries, query_labels = clouds
    constant = torch.full((len(memory), 1), 0.1)
    # In the queries the feature varies: divided by a deviation of 1e-9 it would drown all others.
    wild = torch.randn(len(queries), 1, generator=torch.Generator().manual_seed(0))
    more = torch.cat([memory, constant], 1), memory_labels, torch.cat([queries, wild], 1), query_labels
    assert linear_probe_accuracy(*more) == linear_probe_accuracy(*clouds)
    assert mlp_probe_accuracy(*more) > 0.6


def test_mlp_probe_has_the_layers_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    network = probes._mlp(64, 10, hidden=200, dropout=0.1, generator=generator)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes == {
        "0.weight": (200, 64),
        "0.bias": (200,),
        "1.weight": (200,),
        "1.bias": (200,),
        "4.weight": (10, 200),
        "4.bias": (10,),
    }
    assert isinstance(network[1], nn.BatchNorm1d)
    assert isinstance(network[3], nn.ReLU)
    for layer, width in ((network[0], 64), (network[4], 200)):
        assert 0.95 * width**-0.5 < layer.weight.abs().max() <= width**-0.5

    ones = torch.ones(4000, 50)
    dropped = network[2](ones)
    assert dropped.unique().numel() == 2
    assert (dropped == 0).double().mean().item() == pytest.approx(0.1, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    network.eval()
    torch.testing.assert_close(network[2](ones), ones)

    x = torch.randn(6, 64, generator=generator)
    hidden = x @ network[0].weight.T + network[0].bias
    hidden = hidden / (1 + 1e-5) ** 0.5  # the running statistics of a fresh batch norm are 0 and 1
    expected = hidden.clamp(min=0) @ network[4].weight.T + network[4].bias
    torch.testing.assert_close(network(x), expected)


def paper_probe(memory: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor, epochs: int) -> float:
    """The paper's recipe: batches of 64, Adam with lr 1e-4, divided by ten after 50 and 100 of 150 epochs."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        classes = int(labels.max()) + 1
        net = nn.Sequential(
            nn.Linear(memory.shape[1], 200), nn.BatchNorm1d(200), nn.Dropout(0.1), nn.ReLU(), nn.Linear(200, classes)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 3, 2 * epochs // 3])
        for _ in range(epochs):
            for batch in torch.randperm(len(memory)).split(64):
                if len(batch) == 64:
                    optimizer.zero_grad()
                    F.cross_entropy(net(memory[batch]), labels[batch]).backward()
                    optimizer.step()
            schedule.step()
        net.eval()
        return (net(queries).argmax(1) == query_labels).double().mean().item()


def test_mlp_probe_reaches_the_quality_of_the_papers_recipe() -> None:
    memory, memory_labels = blobs(3000, 24, 5, 1.5, seed=1)
    queries, query_labels = blobs(1000, 24, 5, 1.5, seed=2)
    mean, std = memory.mean(0), memory.std(0)
    expected = paper_probe((memory - mean) / std, memory_labels, (queries - mean) / std, query_labels, epochs=30)
    assert 0.6 < expected < 0.98
    assert mlp_probe_accuracy(memory, memory_labels, queries, query_labels, epochs=30) > expected - 0.02


def test_mlp_probe_separates_what_a_line_cannot() -> None:
    data = *circles(2000, 1), *circles(1000, 2)
    assert linear_probe_accuracy(*data) < 0.7
    assert mlp_probe_accuracy(*data, epochs=30) > 0.97


def test_mlp_probe_depends_on_its_seed_only(clouds) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = mlp_probe_accuracy(*clouds, epochs=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert mlp_probe_accuracy(*clouds, epochs=2) == first
    assert len({mlp_probe_accuracy(*clouds, epochs=2, seed=seed) for seed in range(6)}) > 1


@pytest.mark.parametrize("probe", PROBES)
def test_probes_separate_distant_classes_in_any_dtype(probe) -> None:
    data = *blobs(300, 32, 4, 0.05, seed=1), *blobs(100, 32, 4, 0.05, seed=2)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert probe(data[0].to(dtype), data[1], data[2].to(dtype), data[3]) == 1


@pytest.mark.parametrize("probe", PROBES)
def test_probes_do_not_depend_on_class_numbers(clouds, probe) -> None:
    memory, memory_labels, queries, query_labels = clouds
    renumber = torch.tensor([3, 0, 4, 1, 2])
    renamed = probe(memory, renumber[memory_labels], queries, renumber[query_labels])
    # The MLP's last layer starts from permuted random rows, so its solution differs; the others have a unique one.
    assert renamed == pytest.approx(probe(*clouds), abs=0.05 if probe is mlp_probe_accuracy else 0.004)


@pytest.mark.parametrize("probe", PROBES)
def test_a_class_that_only_the_queries_have_counts_as_wrong(probe) -> None:
    data = [*blobs(300, 32, 4, 0.05, seed=1), *blobs(100, 32, 4, 0.05, seed=2)]
    data[3] = data[3].clone()
    data[3][:25] = 9
    assert probe(*data) == 0.75


@pytest.mark.parametrize("probe", PROBES)
def test_probes_run_inside_a_test_loop(clouds, probe) -> None:
    expected = probe(*clouds)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = [part.clone() for part in clouds]
        assert inside[0].is_inference()
        assert probe(*inside) == expected
    with torch.no_grad():
        assert probe(*clouds) == expected


@pytest.mark.parametrize("probe", PROBES)
def test_probes_do_not_change_the_features(clouds, probe) -> None:
    before = [part.clone() for part in clouds]
    probe(*clouds)
    assert all(torch.equal(part, copy) for part, copy in zip(clouds, before, strict=True))


@pytest.mark.parametrize("probe", PROBES)
def test_probes_name_what_does_not_fit(clouds, probe) -> None:
    memory, memory_labels, queries, query_labels = clouds
    with pytest.raises(ValueError, match=r"memory: features must be \(N, d\)"):
        probe(memory, memory_labels[1:], queries, query_labels)
    with pytest.raises(ValueError, match="queries: no samples"):
        probe(memory, memory_labels, queries[:0], query_labels[:0])
    with pytest.raises(ValueError, match="labels must be 0 or more, got -1"):
        probe(memory, memory_labels - 1, queries, query_labels)
    with pytest.raises(ValueError, match="24 features per sample, queries have 23"):
        probe(memory, memory_labels, queries[:, 1:], query_labels)


def filled(clouds: tuple[Tensor, ...], chunks: int = 4, **options) -> RepresentationQuality:
    metric = RepresentationQuality(mlp_epochs=2, **options)
    memory, memory_labels, queries, query_labels = clouds
    for features, labels in zip(memory.chunk(chunks), memory_labels.chunk(chunks), strict=True):
        metric.update(features, labels, memory=True)
    for features, labels in zip(queries.chunk(chunks), query_labels.chunk(chunks), strict=True):
        metric.update(features, labels, memory=False)
    return metric


def test_metric_equals_the_probes(clouds) -> None:
    values = filled(clouds, k=5).compute()
    assert set(values) == KEYS
    assert values["knn_accuracy"].item() == pytest.approx(knn_accuracy(*clouds, k=5))
    assert values["linear_probe_accuracy"].item() == pytest.approx(linear_probe_accuracy(*clouds), abs=0.004)
    assert values["mlp_probe_accuracy"].item() == pytest.approx(mlp_probe_accuracy(*clouds, epochs=2), abs=0.1)


def test_metric_keeps_the_dtype_and_runs_the_probes_asked_for(clouds) -> None:
    memory, memory_labels, queries, query_labels = clouds
    metric = filled((memory.half(), memory_labels, queries.half(), query_labels), probes=["knn"])
    assert metric.memory_features[0].dtype == torch.float16
    assert set(metric.compute()) == {"knn_accuracy"}
    metric.reset()
    assert metric.memory_features == []


def test_metric_does_not_depend_on_the_order_of_the_samples(clouds) -> None:
    memory, memory_labels, queries, query_labels = clouds
    turned = memory.flip(0), memory_labels.flip(0), queries.roll(5, 0), query_labels.roll(5, 0)
    expected, values = filled(clouds).compute(), filled(turned, chunks=3).compute()
    assert {key: value.item() for key, value in values.items()} == {k: v.item() for k, v in expected.items()}


def test_metric_keeps_no_more_than_its_limit(clouds, monkeypatch) -> None:
    memory, memory_labels, queries, query_labels = clouds
    dimension, batch = memory.shape[1], 16
    monkeypatch.setattr("metrics.representation.MOST_VALUES", 40 * dimension + 1)
    metric = RepresentationQuality(probes=["knn", "linear_probe"])
    for is_memory, features, labels in ((True, memory, memory_labels), (False, queries, query_labels)):
        for rows in torch.arange(len(labels)).split(batch):
            metric.update(features[rows], labels[rows], memory=is_memory)
    rows = [slice(None, None, 2 ** math.ceil(math.log2(len(part) / 40))) for part in (memory, queries)]
    few = memory[rows[0]], memory_labels[rows[0]], queries[rows[1]], query_labels[rows[1]]
    assert 20 < len(few[0]) <= 40
    assert metric.left_out == len(memory) + len(queries) - len(few[0]) - len(few[2])
    found = metric.compute()
    assert found["knn_accuracy"] == pytest.approx(knn_accuracy(*few))
    assert found["linear_probe_accuracy"] == pytest.approx(linear_probe_accuracy(*few))
    metric.reset()
    assert metric.left_out == 0


def test_metric_that_is_called_is_updated(clouds) -> None:
    memory, memory_labels, queries, query_labels = clouds
    called, updated = RepresentationQuality(["knn"]), RepresentationQuality(["knn"])
    for metric in (called, updated.update):
        assert metric(memory, memory_labels, memory=True) is None
        metric(queries, query_labels, memory=False)
    assert called.compute() == updated.compute()


def test_metric_inside_inference_mode(clouds) -> None:
    expected = filled(clouds).compute()
    with torch.inference_mode():
        inside = filled(tuple(part.clone() for part in clouds)).compute()
    assert inside == expected


def test_metric_without_classes_is_empty(clouds) -> None:
    memory, memory_labels, queries, query_labels = clouds
    nobody = torch.full_like(memory_labels, -1)
    assert filled((memory, nobody, queries, query_labels)).compute() == {}
    # Samples without a class are ignored among others.
    some = torch.cat([memory, memory[:50]]), torch.cat([memory_labels, nobody[:50]]), queries, query_labels
    assert filled(some).compute() == filled(clouds).compute()


def test_metric_refuses_what_it_cannot_do(clouds) -> None:
    with pytest.raises(ValueError, match="unknown probe 'svm'"):
        RepresentationQuality(probes=["svm"])
    with pytest.raises(ValueError, match="at least 1"):
        RepresentationQuality(k=0)
    metric = RepresentationQuality()
    with pytest.raises(ValueError, match=r"\(B, d\)"):
        metric.update(torch.ones(3, 4, 4), torch.ones(3, dtype=torch.int64), memory=True)
    metric.update(clouds[2], clouds[3], memory=False)
    with pytest.raises(ValueError, match="no memory features"):
        metric.compute()


def _one_rank(rank: int, cases: list[list[tuple[Tensor, ...]]], results) -> None:
    torch.distributed.init_process_group("gloo", rank=rank)
    for shards in cases:
        metric = RepresentationQuality(mlp_epochs=2)
        memory, memory_labels, queries, query_labels = shards[rank]
        for start in range(0, len(memory), 64):
            metric.update(memory[start : start + 64], memory_labels[start : start + 64], memory=True)
        if len(queries):
            metric.update(queries, query_labels, memory=False)
        values = {key: value.item() for key, value in metric.compute().items()}
        results.put((values, sum(map(len, metric.memory_labels)) == len(memory)))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_result_of_one(clouds) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = {key: value.item() for key, value in filled(clouds).compute().items()}
    torch.set_num_threads(threads)
    memory, memory_labels, queries, query_labels = clouds
    # Uneven shards; in the second case rank 1 gets no query.
    cases = [
        [
            (memory[:150], memory_labels[:150], queries[:cut], query_labels[:cut]),
            (memory[150:], memory_labels[150:], queries[cut:], query_labels[cut:]),
        ]
        for cut in (200, len(queries))
    ]
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    in_two_processes(_one_rank, cases, results)
    for _ in range(2 * len(cases)):
        values, own_samples_only = results.get()
        assert values == expected
        assert own_samples_only


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("in_memory", [True, False])
def test_features_that_are_not_finite_have_no_accuracy(clouds, value, in_memory):
    memory, memory_labels, queries, query_labels = (each.clone() for each in clouds)
    (memory if in_memory else queries)[3, 2] = value
    with pytest.raises(ValueError, match="features must be finite"):
        knn_accuracy(memory, memory_labels, queries, query_labels)
    metric = RepresentationQuality(probes=["knn", "linear_probe"])
    metric.update(memory, memory_labels, memory=True)
    metric.update(queries, query_labels, memory=False)
    with pytest.warns(UserWarning, match="features are not finite"):
        assert all(math.isnan(accuracy) for accuracy in metric.compute().values())
