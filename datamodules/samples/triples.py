"""The sample for triple extraction: Chinese sentences over all 49 predicates of SKE, with their triples.

What there is to learn: which relation a clause states, in which order it names subject and object, where entities
begin and end (titles may be in 《》), which subject an elliptic clause has (``…，由…出版``), lists of subjects and
objects, two relations between the same pair, and entities without any relation. Names are composed of parts, so that
most of those in the test are new.
"""

from collections.abc import Iterable
from random import Random

from readers.triples.json_lines import Sentence

from ..batches import Triple
from .triple_names import MAKERS, words

# Each line: subject type, predicate, object type (the 50 rows of SKE's schema, in its order); kinds of subject and
# object; clauses with the subject; clauses without it, for a subject named before.
_TABLE = """
人物 祖籍 地点|person place|{s}祖籍{o};{o}是{s}的老家|祖籍{o};老家在{o}
人物 父亲 人物|person person|{s}是{o}的儿子;{o}生下了{s}|父亲叫{o};是{o}之子
企业 总部地点 地点|company place|{s}总部设在{o};总部位于{o}的{s}|总部设在{o};总部位于{o}
人物 出生地 地点|person place|{s}出生于{o};{o}人{s}|出生于{o};生在{o}
生物 目 目|species order|{s}是{o}的一种动物;{o}中有{s}|属于{o};分类上归{o}
行政区 面积 Number|district area|{s}面积{o};{s}全境共{o}|面积{o};辖区{o}
机构 简称 Text|institute short|{s}（简称{o}）;{s}，人们叫它{o}|简称{o};人们叫它{o}
影视作品 上映时间 Date|film date|{s}于{o}上映;{o}，{s}登上银幕|{o}上映;定档{o}
人物 妻子 人物|person person|{s}娶了{o};{s}的太太叫{o}|娶了{o};太太叫{o}
歌曲 所属专辑 音乐专辑|song album|{s}收录在{o}中;专辑{o}里有{s}|收录在{o}中;出自专辑{o}
企业 注册资本 Number|company capital|{s}注册资本{o};{s}以{o}注册|注册资本{o};以{o}注册
国家 首都 城市|country city|{s}定都{o};{o}是{s}的首都|定都{o};首都设在{o}
影视作品 导演 人物|film person|{s}由{o}执导;{o}执导了{s}|由{o}执导;{o}导演
历史人物 字 Text|ancient courtesy|{s}，字{o};{s}表字{o}|字{o};表字{o}
人物 身高 Number|person stature|{s}身高{o};{s}有{o}高|身高{o};高{o}
影视作品 出品公司 企业|film company|{s}由{o}出品;{o}出品的{s}|由{o}出品;{o}出品
学科专业 修业年限 Number|major years|{s}学制{o};{s}要读{o}|学制{o};要读{o}
人物 出生日期 Date|person date|{s}生于{o};{s}（{o}出生）|生于{o};{o}出生
影视作品 制片人 人物|film person|{s}由{o}担任制片;{o}制片的{s}|由{o}担任制片;{o}制片
人物 母亲 人物|person person|{s}的妈妈叫{o};{o}是{s}的生母|妈妈叫{o};生母为{o}
影视作品 编剧 人物|film person|{s}由{o}编剧;{o}写了{s}的剧本|由{o}编剧;剧本出自{o}
人物 国籍 国家|person country|{s}是{o}人;{o}籍的{s}|是{o}人;持{o}护照
地点 海拔 Number|mountain height|{s}海拔{o};{s}高出海面{o}|海拔{o};高出海面{o}
网络小说 连载网站 网站|novel site|{s}在{o}连载;{o}连载的{s}|在{o}连载;首发于{o}
人物 丈夫 人物|person person|{s}嫁给了{o};{s}的先生是{o}|嫁给了{o};先生是{o}
历史人物 朝代 Text|ancient dynasty|{s}是{o}时期的人;{o}诗人{s}|{o}时期的人;活在{o}
人物 民族 Text|person nation|{s}，{o};{o}姑娘{s}|{o};{o}同胞
历史人物 号 Text|ancient pseudonym|{s}，号{o};{s}自号{o}|号{o};自号{o}
书籍 出版社 出版社|book press|{s}由{o}出版;{o}推出了{s}|由{o}出版;{o}发行
电视综艺 主持人 人物|show person|{s}由{o}主持;{o}主持的{s}|由{o}主持;{o}主持
学科专业 专业代码 Text|major code|{s}的代码是{o};{s}（{o}）|代码是{o};编号{o}
歌曲 歌手 人物|song person|{s}由{o}演唱;{o}唱了{s}|由{o}演唱;{o}唱
歌曲 作词 人物|song person|{s}由{o}填词;{o}为{s}写了词|由{o}填词;词出自{o}
网络小说 主角 人物|novel person|{s}讲述了{o}的故事;{o}是{s}里的主人公|讲述了{o}的故事;主人公叫{o}
企业 董事长 人物|company person|{o}执掌{s};{s}由{o}出任董事长|由{o}出任董事长;{o}执掌
机构 成立日期 Date|institute date|{s}成立于{o};{o}，{s}挂牌|成立于{o};{o}挂牌
人物 毕业院校 学校|person school|{s}毕业于{o};{o}校友{s}|毕业于{o};从{o}毕业
机构 占地面积 Number|institute area|{s}占地{o};{s}的院区有{o}|占地{o};院区有{o}
国家 官方语言 语言|country language|{s}通行{o};{o}是{s}的国语|通行{o};国语是{o}
行政区 邮政编码 Text|district postcode|{s}邮编{o};寄往{s}请写{o}|邮编{o};邮编为{o}
行政区 人口数量 Number|district people|{s}有人口{o};{s}住着{o}|有人口{o};住着{o}
景点 所在城市 城市|sight city|{s}位于{o};{o}有名的{s}|位于{o};坐落在{o}
图书作品 作者 人物|book person|{s}是{o}写的;{o}所著{s}|{o}著;是{o}写的
企业 成立日期 Date|company date|{s}成立于{o};{o}，{s}开业|成立于{o};{o}开业
歌曲 作曲 人物|song person|{s}由{o}谱曲;{o}为{s}谱了曲|由{o}谱曲;曲子出自{o}
行政区 气候 气候|district climate|{s}属{o};{o}的{s}|属{o};常年{o}
电视综艺 嘉宾 人物|show person|{s}请来了{o};{o}做客{s}|请来了{o};来宾有{o}
影视作品 主演 人物|film person|{s}由{o}领衔;{o}出演了{s}|由{o}领衔;{o}出演
影视作品 改编自 作品|film novel|{s}取材于{o};{o}被拍成了{s}|取材于{o};来自{o}
企业 创始人 人物|company person|{o}创办了{s};{s}是{o}一手建立的|{o}创办;由{o}一手建立
"""

_LINES = [line.split("|") for line in _TABLE.split("\n") if line]
SCHEMA = [line[0].split() for line in _LINES]  # [subject type, predicate, object type]

# By predicate and kinds of subject and object: clauses with and without a subject.
_CLAUSES = [
    (row[1], subject, obj, full.split(";"), tail.split(";"))
    for row, (_, kinds, full, tail) in zip(SCHEMA, _LINES, strict=True)
    for subject, obj in [kinds.split()]
]
# Predicates that can hold for the same subject and object.
_TOGETHER = [
    ("导演", "编剧", "主演", "制片人"),
    ("歌手", "作词", "作曲"),
    ("创始人", "董事长"),
    ("出生地", "祖籍"),
    ("主持人", "嘉宾"),
]
# Each implies the other in the opposite direction.
_MARRIED = {"妻子": "丈夫", "丈夫": "妻子"}
# A subject can have several objects of these.
_LISTED = set(words("导演 编剧 主演 制片人 歌手 作词 作曲 主持人 嘉宾 创始人 作者 出品公司 官方语言"))
# Several subjects can share an object of these.
_SHARED = _LISTED | set(
    words(
        "父亲 母亲 出生地 祖籍 毕业院校 国籍 民族 朝代 出版社 连载网站 所在城市 气候 所属专辑 总部地点 董事长 目 "
        "上映时间 出生日期 修业年限 改编自"
    )
)
_TITLED = {"film", "song", "album", "book", "novel", "show"}
_OPENERS = [
    "据{person}介绍，",
    "昨天，",
    "在{city}，{person}告诉记者，",
    "众所周知，",
    "{date}的报道说，",
    "记者{person}获悉，",
]
_ENDINGS = [
    "，{person}对此没有评论",
    "，这让{person}很惊讶",
    "，{company}表示祝贺",
    "。{person}也在现场",
    "，《{film}》里也提到过",
]
_BETWEEN = ["，", "，", "；", "。"]
_POOL = 400  # entities of each kind that all sentences share; others are made for a single sentence
_FACTS = 20  # recurring triples of each predicate


def make_triple_sentences(count: int, seed: int, split: str, without: Iterable[Sentence] = ()) -> list[Sentence]:
    """Sentences with their triples. Every entity of a triple occurs once in its text.

    Args:
        count: number of sentences.
        seed: together with ``split``, of all draws; shared entities and facts depend on the seed alone.
        split: the name of their split.
        without: sentences; each new one has a triple that is in none of these.
    """
    known = {triple for sentence in without for triple in sentence.triples}
    speaker = _Speaker(seed, Random(f"{split} {seed}"))
    sentences: list[Sentence] = []
    texts: set[str] = set()
    while len(sentences) < count:
        # All predicates in turn: each has its share, even in a small sample.
        sentence = speaker.sentence(len(sentences) % len(_CLAUSES))
        if sentence is not None and sentence.text not in texts and not known.issuperset(sentence.triples):
            sentences.append(sentence)
            texts.add(sentence.text)
    Random(f"order {split} {seed}").shuffle(sentences)
    return sentences


class _Speaker:
    """Makes sentences about a world of shared entities and facts."""

    def __init__(self, seed: int, random: Random) -> None:
        self.random = random
        world = Random(f"world {seed}")
        self.pools = {kind: [maker(world) for _ in range(_POOL)] for kind, maker in MAKERS.items()}
        self.facts = [
            [(world.choice(self.pools[subject]), world.choice(self.pools[obj])) for _ in range(_FACTS)]
            for _, subject, obj, _, _ in _CLAUSES
        ]

    def sentence(self, number: int) -> Sentence | None:
        """A sentence with a given predicate, among others; None if an entity would be ambiguous."""
        draw = self.random.random()
        make = (
            self._same_pair if draw < 0.2
            else self._shared_object if draw < 0.38
            else self._several_objects if draw < 0.5
            else self._shared_subject if draw < 0.8
            else self._apart
        )  # fmt: skip
        self.shown: list[str] = []
        clause, triples = make(number)
        text = self._frame(clause)
        entities = {entity for subject, _, obj in triples for entity in (subject, obj)} | set(self.shown)
        if any(text.count(entity) != 1 for entity in entities) or any(subject == obj for subject, _, obj in triples):
            return None
        married = [(obj, _MARRIED[name], subject) for subject, name, obj in triples if name in _MARRIED]
        return Sentence(text, tuple(dict.fromkeys(triples + married)))

    def _entity(self, kind: str) -> str:
        return self.random.choice(self.pools[kind]) if self.random.random() < 0.6 else MAKERS[kind](self.random)

    def _pair(self, number: int) -> tuple[str, str]:
        """Subject and object: a shared fact, or new."""
        if self.random.random() < 0.2:
            return self.random.choice(self.facts[number])
        _, subject, obj, _, _ = _CLAUSES[number]
        return self._entity(subject), self._entity(obj)

    def _show(self, entity: str, kind: str) -> str:
        """An entity as written in the text: titles mostly in 《》."""
        return f"《{entity}》" if kind in _TITLED and self.random.random() < 0.8 else entity

    def _frame(self, clause: str) -> str:
        """A clause between remarks that name entities without a relation."""
        opener = self.random.choice(_OPENERS) if self.random.random() < 0.35 else ""
        ending = self.random.choice(_ENDINGS) if self.random.random() < 0.35 else ""
        return self._fill(opener) + clause + self._fill(ending)

    def _fill(self, remark: str) -> str:
        for kind in ("person", "city", "date", "company", "film"):
            if f"{{{kind}}}" in remark:
                entity = self._entity(kind)
                self.shown.append(entity)
                remark = remark.replace(f"{{{kind}}}", entity)
        return remark

    def _full(self, number: int, subject: str, obj: str) -> str:
        predicate, subject_kind, object_kind, full, _ = _CLAUSES[number]
        template = self.random.choice([*full, *full, f"{{s}}的{predicate}是{{o}}"])
        return template.format(s=self._show(subject, subject_kind), o=self._show(obj, object_kind))

    def _tail(self, number: int, obj: str) -> str:
        predicate, _, object_kind, _, tail = _CLAUSES[number]
        return self.random.choice([*tail, *tail, f"{predicate}为{{o}}"]).format(o=self._show(obj, object_kind))

    def _apart(self, number: int) -> tuple[str, list[Triple]]:
        """One clause, or two unrelated ones."""
        numbers = [number] if self.random.random() < 0.5 else [number, self.random.randrange(len(_CLAUSES))]
        clauses, triples = [], []
        for each in numbers:
            subject, obj = self._pair(each)
            clauses.append(self._full(each, subject, obj))
            triples.append((subject, _CLAUSES[each][0], obj))
        return self.random.choice(_BETWEEN).join(clauses), triples

    def _shared_subject(self, number: int) -> tuple[str, list[Triple]]:
        """A subject, named once, with two to five predicates."""
        kind = _CLAUSES[number][1]
        others = [other for other, line in enumerate(_CLAUSES) if line[1] == kind and other != number]
        subject, obj = self._pair(number)
        clauses = [self._full(number, subject, obj)]
        triples = [(subject, _CLAUSES[number][0], obj)]
        for other in self.random.sample(others, min(len(others), self.random.choice([1, 1, 2, 3, 4]))):
            obj = self._entity(_CLAUSES[other][2])
            clauses.append(self._tail(other, obj))
            triples.append((subject, _CLAUSES[other][0], obj))
        return "，".join(clauses), triples

    def _several_objects(self, number: int) -> tuple[str, list[Triple]]:
        """A subject with two or three objects of the same predicate."""
        predicate, _, kind, _, _ = _CLAUSES[number]
        if predicate not in _LISTED:
            return self._shared_subject(number)
        subject, first = self._pair(number)
        objects = [first, *(self._entity(kind) for _ in range(self.random.randint(1, 2)))]
        joined = "、".join(objects[:-1]) + self.random.choice("、和与") + objects[-1]
        return self._full(number, subject, joined), [(subject, predicate, obj) for obj in objects]

    def _shared_object(self, number: int) -> tuple[str, list[Triple]]:
        """Two subjects with the same object."""
        predicate, kind, object_kind, _, _ = _CLAUSES[number]
        if predicate not in _SHARED:
            return self._apart(number)
        subject, obj = self._pair(number)
        subjects = [subject, self._entity(kind)]
        first, second = (self._show(each, kind) for each in subjects)
        shown = self._show(obj, object_kind)
        joined = first + self.random.choice("、和与") + second
        clause = self.random.choice(
            [
                f"{joined}的{predicate}都是{shown}",
                f"{shown}是{joined}的{predicate}",
                f"{joined}，{predicate}均为{shown}",
            ]
        )
        return clause, [(each, predicate, obj) for each in subjects]

    def _same_pair(self, number: int) -> tuple[str, list[Triple]]:
        """Two or three predicates of the same subject and object."""
        predicate, kind, object_kind, _, _ = _CLAUSES[number]
        group = next((group for group in _TOGETHER if predicate in group), None)
        if group is None:
            return self._shared_subject(number)
        subject, obj = self._pair(number)
        others = [each for each in group if each != predicate]
        names = [predicate, *self.random.sample(others, min(len(others), self.random.choice([1, 1, 2])))]
        first, second = self._show(subject, kind), self._show(obj, object_kind)
        joined = "、".join(names[:-1]) + self.random.choice("和兼与、") + names[-1]
        clause = self.random.choice(
            [f"{first}的{joined}都是{second}", f"{second}是{first}的{joined}", f"{first}，{joined}：{second}"]
        )
        return clause, [(subject, name, obj) for name in names]
