import numpy as np

from datamodules.samples.shapes import CLASS_NAMES, SHAPES, render_shapes


def test_images_depend_on_the_seed_alone():
    images, labels = render_shapes(70, 32, (3, 0))
    again, labels_again = render_shapes(70, 32, (3, 0))
    assert np.array_equal(images, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(images, render_shapes(70, 32, (3, 1))[0])
    assert images.shape == (70, 32, 32, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [7] * 10


def test_any_size():
    assert render_shapes(3, 48, 0)[0].shape == (3, 48, 48, 3)


def test_outlines_are_distinct_distances():
    """Inside is negative, the shape's extent is about 1, no value changes faster than the point moves."""
    axis = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    inside = []
    for name in CLASS_NAMES:
        distance = SHAPES[name](x, y)
        inside.append(distance < 0)
        area = inside[-1].mean() * 9
        assert 0.5 < area < 3.2, name
        assert not inside[-1][(np.abs(x) > 1.2) | (np.abs(y) > 1.2)].any(), name
        slope = np.abs(np.diff(distance, axis=0)).max() / 0.01
        assert slope < 1.1, name
    for first in range(10):
        for second in range(first):
            union = (inside[first] | inside[second]).mean()
            assert (inside[first] ^ inside[second]).mean() > 0.15 * union, (first, second)


def knn_accuracy(memory, memory_labels, queries, labels, k=20):
    memory = memory / np.linalg.norm(memory, axis=1, keepdims=True)
    nearest = np.argsort(-(queries @ memory.T), axis=1)[:, :k]
    votes = [np.bincount(memory_labels[row], minlength=10).argmax() for row in nearest]
    return np.mean(np.array(votes) == labels)


def test_raw_pixels_are_poor_features():
    images, labels = render_shapes(3000, 32, 0)
    pixels = images.reshape(3000, -1) / 255 - 0.5
    accuracy = knn_accuracy(pixels[:2500], labels[:2500], pixels[2500:], labels[2500:])
    assert 0.08 < accuracy < 0.3
