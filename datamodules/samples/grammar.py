"""The sample text: sentences of a small probabilistic grammar, with their trees.

What there is to learn: nouns and verbs agree in number, even across relative clauses and prepositional phrases; verbs
and prepositions select their objects (one repairs a clock, not a mayor; with a hammer, in a garden), which decides
where a phrase attaches; clauses nest. The trees branch to both sides: possessives, phrases and clauses before the
subject, and long subjects, make right branching a poor parser.
"""

from bisect import bisect
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from random import Random

from readers.text.treebank import ParsedSentence, SpanBuilder

DEEPEST = 3  # nesting of clauses and phrases
LONGEST = 30  # words


def _words(text: str) -> list[str]:
    return text.split()


NAMES = _words("mary john anna peter laura david helen martin nina robert julia simon clara thomas vera oscar")
NOUNS = {
    "person": _words(
        "teacher farmer king doctor singer neighbor pilot queen baker lawyer child sailor nurse thief mayor "
        "painter guard student hunter uncle soldier widow driver judge"
    ),
    "animal": _words("dog cat horse bird fox wolf goat rabbit donkey monkey bear mouse duck lion"),
    "thing": _words(
        "book letter clock lamp table basket window door bottle boat violin carpet mirror wagon statue barrel "
        "kettle blanket chair coin"
    ),
    "tool": _words("hammer knife brush rope broom shovel needle torch"),
    "place": _words(
        "garden house forest market river village kitchen church bridge valley castle harbor station meadow"
    ),
}
IRREGULAR = {"child": "children", "thief": "thieves", "wolf": "wolves", "mouse": "mice", "knife": "knives"}
INTRANSITIVE = {
    "person": _words("sleep wait laugh sing dance travel arrive work complain return"),
    "animal": _words("sleep run jump wait drink swim hide return"),
    "thing": _words("disappear fall shine burn vanish rot"),
}
# Subject, object, and the verbs between them.
TRANSITIVE = [
    ("person", "person", _words("help thank follow blame trust greet admire visit invite marry ignore")),
    ("person", "animal", _words("feed follow hear train chase own catch")),
    ("person", "thing", _words("open repair sell buy paint carry clean find break hide lose steal")),
    ("animal", "animal", _words("chase bite follow fear watch")),
    ("animal", "person", _words("follow watch hear fear")),
    ("thing", "person", _words("surprise please worry annoy amuse")),
]
CLAUSAL = _words("say think know believe hope claim doubt remember")
ADJECTIVES = {
    "person": _words("old young clever tired proud lonely famous brave lazy rich"),
    "animal": _words("hungry wild old small lazy brown clever fast"),
    "thing": _words("heavy old new broken wooden golden small cheap dusty"),
    "tool": _words("sharp heavy new rusty long"),
    "place": _words("quiet old dark large empty green distant"),
}
DETERMINERS = {False: _words("the a every this my our"), True: _words("the some these many two our three")}
PLACE_PREPOSITIONS = _words("in near behind at beside")
MANNER = _words("slowly often quietly quickly again gladly secretly")
OPENERS = _words("yesterday sometimes today perhaps soon")
SUBORDINATORS = _words("when because while although if")
DEGREES = _words("very rather quite")
AUXILIARIES = _words("will may can must")


def plural(noun: str) -> str:
    """The plural of a noun of the lexicon."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeo" else noun + _ending(noun)


def third_person(verb: str) -> str:
    """The form of a verb of the lexicon after a singular subject."""
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeou" else verb + _ending(verb)


def _ending(word: str) -> str:
    return "es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s"


def make_sentences(count: int, seed: int, split: str, without: Iterable[ParsedSentence] = ()) -> list[ParsedSentence]:
    """Sentences of the grammar.

    Args:
        count: number of sentences.
        seed: together with ``split``, of all draws.
        split: the name of their split.
        without: sentences not to repeat.
    """
    known = {sentence.words for sentence in without}
    random = Random(f"{split} {seed}")
    sentences: list[ParsedSentence] = []
    while len(sentences) < count:
        sentence = _Speaker(random).sentence()
        if 3 <= len(sentence.words) <= LONGEST and sentence.words not in known:
            sentences.append(sentence)
    return sentences


class _Speaker:
    """Utters one sentence; each method utters one constituent."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.builder = SpanBuilder()

    def sentence(self) -> ParsedSentence:
        self.clause(0)
        sentence = self.builder.sentence()
        following = (*sentence.words[1:], "")
        words = (
            "an" if word == "a" and after[:1] in "aeiou" else word
            for word, after in zip(sentence.words, following, strict=True)
        )
        return ParsedSentence(tuple(words), sentence.spans)

    # ------------------------------------------------------------------------------------------------------- choices

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, words: list[str]) -> str:
        """One of the words, earlier ones more often (Zipf)."""
        return words[bisect(_zipf(len(words)), self.random.random())]

    def choose(self, depth: int, options: dict[str, tuple[float, float]]) -> str:
        """A random option; weights are given at the top and at the greatest depth, and interpolated."""
        share = min(1.0, depth / DEEPEST)
        weights = [top * (1 - share) + deep * share for top, deep in options.values()]
        return self.random.choices(list(options), weights)[0]

    # -------------------------------------------------------------------------------------------------- constituents

    def say(self, *words: str) -> None:
        for word in words:
            self.builder.word(word)

    def clause(self, depth: int) -> None:
        self.builder.open("S")
        kind = self.choose(
            depth, {"plain": (5, 1), "place": (1.5, 0), "adverb": (1, 0), "subordinate": (1.3, 0), "and": (0.8, 0)}
        )
        if kind == "and":
            self.clause(depth + 2)
            self.say("and")
            self.clause(depth + 2)
        else:
            if kind == "place":
                self.place(depth + 1)
            elif kind == "adverb":
                self.say(self.pick(OPENERS))
            elif kind == "subordinate":
                self.builder.open("SBAR")
                self.say(self.pick(SUBORDINATORS))
                self.clause(depth + 2)
                self.builder.close()
            subject = self.pick(["person", "animal", "thing"])
            many = self.noun_phrase(subject, depth)
            self.verb_phrase(subject, many, depth)
        self.builder.close()

    def place(self, depth: int) -> None:
        self.builder.open("PP")
        self.say(self.pick(PLACE_PREPOSITIONS))
        self.noun_phrase("place", depth)
        self.builder.close()

    def noun_phrase(self, kind: str, depth: int, many: bool | None = None) -> bool:
        """Utters a noun phrase of a semantic ``kind``; returns whether it is plural."""
        many = self.chance(0.4) if many is None else many
        relative = 1.6 if kind in ("person", "animal", "thing") else 0.0
        options = {
            "simple": (4, 6),
            "name": (1.2, 2) if kind == "person" and not many else (0, 0),
            "possessive": (1.2, 0.5) if kind != "place" else (0.3, 0),
            "place": (1, 0) if kind != "place" else (0.2, 0),
            "relative": (relative, 0),
            "and": (0.7, 0) if many else (0, 0),
        }
        form = self.choose(depth, options)
        self.builder.open("NP")
        if form == "simple":
            self.say(self.pick(DETERMINERS[many]))
            self.adjectives_and_noun(kind, many)
        elif form == "name":
            self.say(self.pick(NAMES))
        elif form == "possessive":
            self.builder.open("NP")
            self.noun_phrase("person", depth + 2)
            self.say("'s")
            self.builder.close()
            self.adjectives_and_noun(kind, many)
        elif form == "and":
            self.noun_phrase(kind, depth + 2, many=False)
            self.say("and")
            self.noun_phrase(kind, depth + 2)
        else:
            self.noun_phrase(kind, DEEPEST, many)
            if form == "place":
                self.place(depth + 2)
            else:
                self.relative_clause(kind, many, depth + 1)
        self.builder.close()
        return many

    def adjectives_and_noun(self, kind: str, many: bool) -> None:
        if self.chance(0.35):
            if self.chance(0.25):
                self.builder.open("ADJP")
                self.say(self.pick(DEGREES), self.pick(ADJECTIVES[kind]))
                self.builder.close()
            else:
                self.say(self.pick(ADJECTIVES[kind]))
        noun = self.pick(NOUNS[kind])
        self.say(plural(noun) if many else noun)

    def relative_clause(self, kind: str, many: bool, depth: int) -> None:
        """``that chases the cat`` or, between a noun and its verb, ``that the cat chases``."""
        self.builder.open("SBAR")
        self.say("that")
        takers = [(subject, verbs) for subject, taken, verbs in TRANSITIVE if taken == kind]
        if takers and self.chance(0.5):
            subject, verbs = takers[int(self.random.random() * len(takers))]
            self.builder.open("S")
            self.verb(self.pick(verbs), self.noun_phrase(subject, depth + 1))
            self.builder.close()
        else:
            self.verb_phrase(kind, many, depth + 1)
        self.builder.close()

    def verb(self, verb: str, many: bool) -> None:
        self.say(verb if many else third_person(verb))

    def verb_phrase(self, subject: str, many: bool, depth: int) -> None:
        self.builder.open("VP")
        options = {"verb": (4, 3), "auxiliary": (0.8, 0.4), "and": (0.6, 0)}
        options["clause"] = (1, 0) if subject == "person" else (0, 0)
        form = self.choose(depth, options)
        if form == "and":
            self.verb_phrase(subject, many, depth + 2)
            self.say("and")
            self.verb_phrase(subject, many, depth + 2)
        elif form == "auxiliary":
            self.say(self.pick(AUXILIARIES))
            self.verb_phrase(subject, True, DEEPEST)
        elif form == "clause":
            self.verb(self.pick(CLAUSAL), many)
            self.builder.open("SBAR")
            self.say("that")
            self.clause(depth + 1)
            self.builder.close()
        else:
            self.verb_and_objects(subject, many, depth)
        self.builder.close()

    def verb_and_objects(self, subject: str, many: bool, depth: int) -> None:
        takes = [(taken, verbs) for taker, taken, verbs in TRANSITIVE if taker == subject]
        taken = None
        if self.chance(0.7):
            taken, verbs = takes[int(self.random.random() * len(takes))]
            self.verb(self.pick(verbs), many)
            self.noun_phrase(taken, depth + 1)
        else:
            self.verb(self.pick(INTRANSITIVE[subject]), many)
        if taken == "thing" and self.chance(0.35):
            self.builder.open("PP")
            self.say("with")
            self.noun_phrase("tool", depth + 1)
            self.builder.close()
        elif taken is None and self.chance(0.35):
            self.place(depth + 1)
        elif self.chance(0.2):
            self.say(self.pick(MANNER))


@lru_cache
def _zipf(count: int) -> list[float]:
    """Cumulative probabilities, proportional to 1 / (rank + 2)."""
    weights = list(accumulate(1 / (rank + 2) for rank in range(count)))
    return [weight / weights[-1] for weight in weights[:-1]]
