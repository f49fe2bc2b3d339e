"""What data takes from a trained model, so that the model reads other sentences as it read its own."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from readers.triples.json_lines import Triple
from readers.triples.schemas import Schema


class TrainedVocabulary(NamedTuple):
    """The vocabulary of a trained ``TripleExtractor``.

    Args:
        characters: ``<pad>``, ``<unk>`` and those of its training text.
        schema: its predicates and slots of objects.
        known_triples: those of its training sentences, for distant supervision.
        words: those that it has vectors of.
        word_vector_size: of these vectors.
    """

    characters: list[str]
    schema: Schema
    known_triples: list[Triple]
    words: list[str]
    word_vector_size: int

    @classmethod
    def of(cls, hyperparameters: Mapping[str, Any]) -> "TrainedVocabulary | None":
        """That of a model with these hyperparameters; None if they are no ``TripleExtractor``'s."""
        if not all(hyperparameters.get(name) for name in ("characters", "schema")):
            return None
        return cls(
            list(hyperparameters["characters"]),
            Schema([list(row) for row in hyperparameters["schema"]], bool(hyperparameters.get("object_slots"))),
            [(subject, predicate, obj) for subject, predicate, obj in hyperparameters.get("known_triples", ())],
            list(hyperparameters.get("words", ())),
            hyperparameters.get("word_vector_size", 0),
        )
