"""Names for the sample of triple extraction, composed of parts: people, places, works, dates, amounts."""

from collections.abc import Callable
from random import Random


def words(text: str) -> list[str]:
    """The words of a text, separated by blanks."""
    return text.split()


_SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦许何吕张孔曹严金魏陶姜谢邹苏潘葛范彭鲁马方任袁柳鲍唐薛雷贺罗"
_GIVEN = "伟芳敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂英华玉萍红玲芬燕彬宁晨雨欣浩宇轩梓涵思琪佳怡志远文博海波春梅"
_SYLLABLES = "安宁和平兴永昌盛东西南北清河源山泉林江阳光华新宝泰康顺丰瑞祥云龙凤金玉石长白沙"
_WORDS = words(
    "春天 夜色 远方 长街 故乡 雪国 星河 海风 旧梦 少年 灯火 城南 往事 归途 月光 孤岛 风暴 青鸟 白马 红楼 江湖 天涯 "
    "人间 时光 候鸟 雨季 彼岸 烟火 荒原 深海"
)
_JOINS = words("之 的 与 里的 下的")
_COUNTRIES = words(
    "法国 德国 日本 巴西 埃及 印度 加拿大 西班牙 意大利 墨西哥 阿根廷 瑞典 挪威 波兰 希腊 土耳其 秘鲁 智利 泰国 越南"
)
_LANGUAGES = words(
    "法语 德语 日语 葡萄牙语 阿拉伯语 印地语 英语 西班牙语 意大利语 瑞典语 挪威语 波兰语 希腊语 土耳其语 泰语 越南语"
)
_DYNASTIES = words("唐代 宋代 元代 明代 清代 汉代 隋代 东晋 西晋 北魏 南朝 战国")
_NATIONS = words("汉族 回族 满族 苗族 藏族 壮族 彝族 白族 傣族 侗族 瑶族 土家族 维吾尔族 蒙古族 朝鲜族")
_CLIMATES = words(
    "温带季风气候 亚热带季风气候 热带雨林气候 高原山地气候 温带大陆性气候 地中海气候 热带草原气候 寒带气候"
)
_SUBJECTS = words("数学 物理 化学 法学 土木 会计 护理 园林 新闻 机械 电子 生物 历史 哲学 音乐 金融 医学 软件 汉语 农业")


def _parts(random: Random, pool: str | list[str], least: int, most: int) -> str:
    return "".join(random.choice(pool) for _ in range(random.randint(least, most)))


def _title(random: Random) -> str:
    first, second = random.sample(_WORDS, 2)
    return random.choice([first + random.choice(_JOINS) + second, first + second, first + random.choice("记传曲歌谣")])


def _date(random: Random) -> str:
    year, month, day = random.randint(1900, 2019), random.randint(1, 12), random.randint(1, 28)
    return random.choice([f"{year}年", f"{year}年{month}月", f"{year}年{month}月{day}日"])


# A generator of entities for each kind.
MAKERS: dict[str, Callable[[Random], str]] = {
    "person": lambda random: random.choice(_SURNAMES) + _parts(random, _GIVEN, 1, 2),
    "ancient": lambda random: random.choice(_SURNAMES) + _parts(random, _GIVEN, 1, 2),
    "courtesy": lambda random: random.choice("子伯仲叔公元") + random.choice(_GIVEN),
    "pseudonym": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice(words("居士 先生 道人 山人 老人")),
    "place": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice("县镇村乡州"),
    "district": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice("县镇区旗州"),
    "city": lambda random: _parts(random, _SYLLABLES, 2, 2) + "市",
    "sight": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice(words("寺 塔 公园 古城 博物馆 瀑布")),
    "mountain": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice(words("山 峰 岭 高原")),
    "company": lambda random: (
        _parts(random, _SYLLABLES, 2, 2)
        + random.choice(words("影业 科技 药业 传媒 食品 能源"))
        + random.choice(["公司", "集团", "有限公司"])
    ),
    "institute": lambda random: (
        _parts(random, _SYLLABLES, 2, 2) + random.choice(words("研究院 医院 协会 中学 图书馆 基金会"))
    ),
    "school": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice(words("大学 学院 师范大学 戏剧学院")),
    "press": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice(words("出版社 文艺出版社 教育出版社")),
    "site": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice(words("中文网 文学网 书院 小说网")),
    "short": lambda random: _parts(random, _SYLLABLES, 2, 2) + random.choice("院会所协馆"),
    "species": lambda random: _parts(random, _SYLLABLES, 1, 2) + random.choice(words("雀 蛙 蜥 鼠 蝶 鲤 鹿")),
    "order": lambda random: random.choice(words("雀形 无尾 有鳞 啮齿 鳞翅 鲤形 偶蹄 食肉 鞘翅 直翅 鸽形 鹰形")) + "目",
    "major": lambda random: random.choice(_SUBJECTS) + random.choice(["教育", "工程", "技术", "管理", "学"]),
    "film": _title,
    "song": _title,
    "album": _title,
    "book": _title,
    "novel": _title,
    "show": lambda random: random.choice(_WORDS) + random.choice(words("大挑战 好声音 会客厅 欢乐行 总动员")),
    "date": _date,
    "area": lambda random: f"{random.randint(11, 9999)}{random.choice(['平方公里', '亩', '公顷', '平方米'])}",
    "capital": lambda random: f"{random.randint(11, 9999)}{random.choice(['万元', '万元人民币', '亿元', '万美元'])}",
    "height": lambda random: f"{random.randint(320, 8800)}{random.choice(['米', 'm', '公尺'])}",
    "stature": lambda random: (
        f"{random.randint(145, 210)}{random.choice(['厘米', 'cm'])}"
        if random.random() < 0.6
        else f"1.{random.randint(45, 99)}{random.choice('米m')}"
    ),
    "years": lambda random: random.choice("两三四五六七八") + random.choice(["年", "年制", "个学期"]),
    "code": lambda random: f"{random.randint(100000, 999999)}" + random.choice(["", "", "K", "T"]),
    "postcode": lambda random: f"{random.randint(100000, 859999)}",
    "people": lambda random: f"{random.randint(11, 999)}{random.choice(['万人', '万', '人', '.5万人'])}",
    "country": lambda random: random.choice(_COUNTRIES),
    "language": lambda random: random.choice(_LANGUAGES),
    "dynasty": lambda random: random.choice(_DYNASTIES),
    "nation": lambda random: random.choice(_NATIONS),
    "climate": lambda random: random.choice(_CLIMATES),
}
