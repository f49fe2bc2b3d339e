"""``python -m map_equation``."""

import json
import os
import subprocess
import sys

import numba
import pytest

from map_equation import infomap
from map_equation.__main__ import main
from map_equation.cluster_file import COMPILING, SayOnce, said_when_compiling
from tests.conftest import ROOT

LINKS = "1 2\n2 3\n3 1\n3 4\n4 5\n5 6\n6 4\n"


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "g.txt").write_text(LINKS)
    return tmp_path / "g.txt"


@pytest.mark.parametrize("ending", ["tree", "clu", "csv", "json"])
def test_a_graph_is_clustered(graph, tmp_path, capsys, ending):
    output = tmp_path / f"out.{ending}"
    assert main([str(graph), str(output)]) == 0
    out = capsys.readouterr().out
    assert out == (
        "6 nodes, 7 links: 2 modules, 2 levels, 2.320730 bits (2.556657 without modules), "
        f"flow undirected -> {output}\n"
    )
    if ending == "json":
        assert json.loads(output.read_text())["codelength"] == pytest.approx(2.320730356834)
    else:
        assert len([line for line in output.read_text().splitlines() if line[0].isdigit()]) == 6


def test_options_reach_the_search(graph, tmp_path, capsys):
    output = tmp_path / "out.tree"
    options = {"directed": "true", "markov_time": 0.8, "seed": 3, "num_trials": 2, "num_threads": 2}
    given = [f"--{name}={value}" for name, value in options.items()]
    assert main([str(graph), str(output), "--two_level", *given]) == 0
    expected = infomap(graph, flow="directed", two_level=True, markov_time=0.8, seed=3, num_trials=2)
    assert f"{expected.codelength:.6f} bits" in capsys.readouterr().out
    assert main([str(graph), str(output), "--flow", "uniform_recorded"]) == 0
    assert "flow uniform_recorded" in output.read_text()
    (tmp_path / "arcs.net").write_text("*Vertices 3\n*Arcs\n1 2\n2 3\n3 1\n")
    for options, flow in (([], "directed"), (["--directed", "false"], "undirected")):
        assert main([str(tmp_path / "arcs.net"), str(output), *options]) == 0
        assert f"flow {flow}\n" in output.read_text()


def test_scores_and_starts(graph, tmp_path, capsys):
    (tmp_path / "given.clu").write_text("1 1\n2 1\n3 2\n4 2\n5 2\n6 2\n")
    given = ["--initial", str(tmp_path / "given.clu")]
    assert main([str(graph), str(tmp_path / "scored.tree"), *given, "--score"]) == 0
    scored = float((tmp_path / "scored.tree").read_text().split()[2])
    assert scored == pytest.approx(infomap(graph, initial=[0, 0, 1, 1, 1, 1]).passes[0], abs=1e-10)
    assert scored > 2.33
    assert main([str(graph), str(tmp_path / "found.tree"), *given]) == 0
    assert "2.320730 bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["g.txt"], "the following arguments are required: OUTPUT"),
        (["none.txt", "out.tree"], "cannot read none.txt: No such file"),
        (["g.txt", "out.txt"], "out.txt must end in .tree, .clu, .csv, .json"),
        (["g.txt", "none/out.tree"], "there is no folder none"),
        (["g.txt", "out.tree", "--two-level"], "unknown argument --two-level, did you mean --two_level?"),
        (["g.txt", "out.tree", "--seed", "x"], "--seed: invalid int value: 'x'"),
        (["g.txt", "out.tree", "--seed", "-1"], "seed must be at least 0, a whole number, not -1"),
        (["g.txt", "out.tree", "--directed", "maybe"], "--directed: 'maybe' is not true or false"),
        (["g.txt", "out.tree", "--flow", "direct"], "--flow: invalid choice: 'direct'"),
        (["g.txt", "out.tree", "--markov_time", "0"], "markov_time must be positive"),
        (["g.txt", "out.tree", "--num_trials", "0"], "num_trials must be at least 1"),
        (
            ["g.txt", "out.tree", "--flow", "undirected", "--directed", "true"],
            "flow undirected and directed true contra",
        ),
        (
            ["g.txt", "out.tree", "--flow", "directed", "--directed", "false"],
            "flow directed and directed false contradict",
        ),
        (["g.txt", "out.tree", "--score"], "score needs the modules"),
        (["g.txt", "out.tree", "--initial", "none.clu"], "cannot read none.clu"),
        (["bad.txt", "out.tree"], "bad.txt, line 2: the weight 'x' must be"),
        (["empty.txt", "out.tree"], "empty.txt is an empty graph"),
        (["old.clu", "old.clu"], "old.clu is the graph itself"),
    ],
)
def test_bad_input_is_one_line_and_status_2(graph, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_text("1 2 1\n2 3 x\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "old.clu").write_text(LINKS)
    (tmp_path / "out.tree").write_text("kept")
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (tmp_path / "out.tree").read_text() == "kept"
    assert not list(tmp_path.glob("*.part"))


def test_it_runs_without_torch_pandas_and_networkx(graph, tmp_path):
    code = (
        "import sys, runpy, os, numba\n"
        "numba.njit(lambda x: x + 1)(1)\n"  # up to 0.61 this loads scipy.sparse
        "unwanted = {'torch', 'pandas', 'networkx', 'scipy.sparse', 'pytorch_lightning'} - set(sys.modules)\n"
        "os._exit = lambda status: print(status, *sorted(set(sys.modules) & unwanted))\n"
        f"sys.argv[1:] = [{str(graph)!r}, {str(tmp_path / 'out.csv')!r}]\n"
        "runpy.run_module('map_equation', run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "0"


def test_compiling_is_announced_once(capsys, monkeypatch):
    monkeypatch.setattr(SayOnce, "said", False)
    with said_when_compiling():
        numba.njit(lambda x: x + 1)(1)
        numba.njit(lambda x: x - 1)(1)
    assert capsys.readouterr().err == f"{COMPILING}\n"
    numba.njit(lambda x: x * 2)(1)
    assert capsys.readouterr().err == ""


def test_a_link_stays_and_its_target_is_replaced(graph, tmp_path, capsys):
    link, target = tmp_path / "out.csv", tmp_path / "target"
    link.symlink_to(target)
    for _ in range(2):  # the first makes the target
        assert main([str(graph), str(link)]) == 0
        assert link.is_symlink()
        assert target.read_text().startswith("name,")
        target.write_text("old")


def test_a_pipe_or_a_link_to_nowhere_is_no_output(graph, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "none" / "target")
    for name, words in (("pipe.csv", "pipe.csv is not a file"), ("link.csv", "none; create it first")):
        assert main([str(graph), str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "pipe.csv").is_fifo()
