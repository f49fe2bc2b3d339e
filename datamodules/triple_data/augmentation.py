"""Augmentation of sentences: the entities of a triple replaced by those of another."""

import re
from collections.abc import Mapping

from readers.triples.json_lines import Mention, Sentence
from readers.triples.matching import boundaries
from readers.triples.normalization import Span

from ..batches import Triple


def replace_entities(sentence: Sentence, triple: Triple, other: Triple) -> Sentence | None:
    """A sentence with the subject and object of one of its triples replaced by those of another.

    Both are replaced simultaneously wherever they occur as words in the text, and in its triples; if one contains the
    other, the longer one has precedence.

    Returns:
        The new sentence; None if an entity stands only inside words, or a span that the file gives would be cut.

    Source: kg-2019 (``random_generate``). Difference: it replaces one after the other, so that the second replacement
    can change the first.
    """
    new = {triple[0]: other[0], triple[2]: other[2]}
    pattern = re.compile("|".join(map(re.escape, sorted(new, key=len, reverse=True))))
    matches = _whole_words(pattern, sentence.text)
    if any(name in sentence.text and not any(name in match[0] for match in matches) for name in new):
        return None

    def changed(text: str) -> str:
        parts, end = [], 0
        for match in _whole_words(pattern, text):
            parts += [text[end : match.start()], new[match[0]]]
            end = match.end()
        return "".join([*parts, text[end:]])

    text = changed(sentence.text)
    found: dict[Triple, dict[Mention, None]] = {}
    for (subject, predicate, obj), mentions in zip(
        sentence.triples, sentence.mentions or [()] * len(sentence.triples), strict=True
    ):
        for mention in mentions or ((None, None),):
            try:
                spans = tuple(span and _move(span, matches, new) for span in mention)
            except ValueError:
                return None
            first, last = (
                text[slice(*span)] if span else changed(name) for name, span in zip((subject, obj), spans, strict=True)
            )
            kept = found.setdefault((first, predicate, last), {})
            if any(spans):
                kept[spans[0], spans[1]] = None
    return Sentence(text, tuple(found), tuple(map(tuple, found.values())) if sentence.mentions else ())


def _whole_words(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return [match for match in pattern.finditer(text) if boundaries(text, match.start(), match.end()) == 2]


def _move(span: Span, matches: list[re.Match[str]], new: Mapping[str, str]) -> Span:
    """Where a span is after all matches are replaced.

    Raises:
        ValueError: one of its ends is inside a match.
    """
    places = []
    for place in span:
        before = [match for match in matches if match.start() < place]
        if before and before[-1].end() > place:
            raise ValueError
        places.append(place + sum(len(new[match[0]]) - len(match[0]) for match in before))
    return places[0], places[1]
