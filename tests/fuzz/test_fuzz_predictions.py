"""``predict_file`` of the models that read texts and graphs, on broken files."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import pytorch_lightning as pl
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzzing import bounded, broken, check_message, fuzz
from tests.matrix.pairs import PAIRS
from tests.matrix.runs import make_data, make_model

LINES = {
    "on_lstm-words": ["the cat sees a dog\n\na dog\n", "The cat , <unk> 3 中\n"],
    "classifier-formulas": ["a\tb\n( a and b )\t( not b )\n", "=\ta\tb\n"],
    "triples-sentences": ["人物的《书》是作者。\n\n书\n", '{"text": "人物"}\n{"text": "书的"}\n'],
    "transformer-copies": ["1 2 3\n4 1\n"],
    "transformer-characters": ["the cat\n\nthe\n"],
    "infomap-edges": ["1 2\n2 3 0.5\n3 1\n", "a,b\nb,c\n"],
}
EARLIER = b"earlier"


@cache
def trained(name: str) -> tuple[pl.LightningModule, str, dict[str, int]]:
    """A small untrained model, the suffix of its output, and its options."""
    (pair,) = (pair for pair in PAIRS if pair.name == name)
    data = make_data(pair)
    data.setup()
    options = {name: int(value) for name, value in (option[2:].split("=") for option in pair.options)}
    return make_model(pair, data, Path(mkdtemp())).eval(), pair.predicts, options


@pytest.mark.parametrize("name", LINES)
@fuzz(15)
@given(broke=st.data())
def test_a_file_is_answered_or_rejected(tmp_path_factory: pytest.TempPathFactory, name: str, broke: st.DataObject):
    data = broke.draw(broken(st.sampled_from([text.encode() for text in LINES[name]])))
    folder = tmp_path_factory.mktemp("asked")
    model, ending, options = trained(name)
    asked, answers = folder / "asked.txt", folder / f"answers{ending}"
    asked.write_bytes(data)
    answers.write_bytes(EARLIER)
    try:
        with bounded():
            report = model.predict_file(asked, answers, **options)
    except ValueError as error:
        check_message(str(error), asked)
        assert answers.read_bytes() == EARLIER, "a rejected file must leave earlier answers alone"
    else:
        assert answers.name in report
        assert answers.read_bytes() != EARLIER
