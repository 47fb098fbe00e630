"""Needles that share no word with the question: what is said must be understood to be found. The templates are our own."""

from __future__ import annotations

from synth.needles import vocabulary
from synth.needles.body import Draft
from synth.needles.setting import Setting
from synth.needles.vocabulary import SPLITS

TEMPLATES = {
    "en_US": (
        ("{who} can see the Eiffel Tower while doing the dishes.", "Who lives in Paris?"),
        ("{who} has never eaten anything that used to breathe.", "Which person is a vegetarian?"),
        ("{who} spends every night among patients and every noon asleep.", "Which character works in a hospital after dark?"),
        ("{who} was wearing white, and the rings had been her grandfather's.", "Whose wedding is described?"),
        ("{who} keeps a bow, a block of rosin and four spare strings in one case.", "Who plays the violin?"),
        ("{who} counts in francs and wakes up to the Matterhorn.", "Which person resides in Switzerland?"),
        ("{who} has been to the surface of the Moon and back.", "Which character used to be an astronaut?"),
        ("{who} needs a white cane to cross the road.", "Who is blind?"),
        ("{who} begins to sneeze as soon as a kitten comes in.", "Which person is allergic to cats?"),
        ("{who} won by giving up the queen and mating with a knight.", "Who is good at chess?"),
        ("{who} was an only child and never minded it.", "Which character grew up without sisters?"),
        ("{who} waters the tomatoes on a balcony over the Nile, with the pyramids on the horizon.", "Who could be met in Cairo?"),
        ("{who} had to bring a doctor's note because of the broken ankle.", "Which person should not go dancing?"),
        ("{who} signs with three crosses because letters never made sense.", "Who is unable to read?"),
        ("{who} keeps the fire engine's keys on a hook by the bed.", "Which character is called when a house burns?"),
        ("{who} has forty hives and smells of smoke and wax.", "Who sells honey?"),
        ("{who} was born on the twenty-ninth of February.", "Whose birthday is rare?"),
        ("{who} pours the milk away and drinks it black.", "Which person takes coffee without cream?"),
        ("{who} shouts from the ring to the red corner between two bells.", "Who trains boxers?"),
        ("{who} has crossed the equator eleven times and still gets sick on every deck.", "Which character travels by ship?"),
    ),
    "zh_CN": (
        ("{who}一边洗碗，一边就能望见埃菲尔铁塔。", "谁住在巴黎？"),
        ("{who}从来不碰任何曾经会呼吸的食物。", "哪一位吃素？"),
        ("{who}的琴盒里装着弓、松香和四根备用的弦。", "谁会拉小提琴？"),
        ("小猫一进屋，{who}就开始打喷嚏。", "哪一位对宠物过敏？"),
        ("{who}过马路离不开那根白色的手杖。", "谁看不见东西？"),
        ("{who}守着四十个木箱，身上总是烟和蜡的味道。", "谁卖蜂蜜？"),
        ("{who}舍掉了皇后，却用马将死了对方。", "哪一位擅长国际象棋？"),
        ("{who}签名时只会画三个十字。", "谁不识字？"),
    ),
}  # fmt: skip


def draft(setting: Setting) -> Draft:
    """One sentence on a person whom nothing else speaks of."""
    who = vocabulary.person(setting.chance, setting.locale, setting.split)
    statement, question = setting.chance.one(TEMPLATES[setting.locale][SPLITS.index(setting.split) :: 2])
    found = setting.among(statement.format(who=who), [])
    asking = setting.wording.hidden
    return Draft(
        head=asking.head,
        tail=asking.tail.format(query=question),
        answer_prefix=asking.prefix,
        outputs=[who],
        lay=setting.run(setting.haystack("", setting.locale), found.needles, found.depths),
    )
