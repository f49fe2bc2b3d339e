from benchmarks import data


def test_rows_of_the_benchmark(monkeypatch):
    monkeypatch.setattr(data, "_rows_of_texts", lambda quick: [])
    rows = data.run(quick=True)
    assert len({(row["case"], row["peer"]) for row in rows}) == len(rows) == 4
    for row in rows:
        assert row["benchmark"] == "data"
        assert row["ratio"] == row["images_per_second"] / row["peer_images_per_second"] > 1
