"""What stands around tables and questions: the opening, the rules of answering, and how worked steps are asked for and ended."""

from __future__ import annotations

from synth.tables.schema import Language
from synth.tables.wording import NOT_IN_TABLE, Bilingual, Wordings

TITLE: dict[Language, str] = {"en": "Table: ", "zh": "表："}
ANSWER: dict[Language, str] = {"en": "Answer: ", "zh": "答案："}
"""What the last line of a response with steps begins with."""

OPENING_ONE: Bilingual = {
    "en": Wordings(
        train=(
            "Here is a table of {many}.",
            "I have a table of {many} and a question about it.",
            "The following table lists {many}.",
            "Below you find an export of our {many}.",
            "Please work with this table of {many}.",
            "This is what our records say about the {many}.",
        ),
        test=("Have a look at this list of {many}.", "I am pasting a table of {many} for you."),
    ),
    "zh": Wordings(
        train=(
            "下面是一张{many}的表格。",
            "我有一张关于{many}的表，想请教一个问题。",
            "下表列出了{many}的信息。",
            "以下是我们导出的{many}数据。",
            "请根据这张{many}的表格作答。",
            "这是我们关于{many}的记录。",
        ),
        test=("请看这份{many}清单。", "我把{many}的表格贴在这里。"),
    ),
}
OPENING_TWO: Bilingual = {
    "en": Wordings(
        train=(
            "Here are two tables: one of {many}, one of {others}.",
            "The first table below lists {many}, the second one {others}.",
            "I have a table of {many} and a table of the {others} they refer to.",
            "Below you find an export of our {many}, and of the {others} that belong to them.",
        ),
        test=(
            "Have a look at these two lists, {many} and {others}.",
            "I am pasting two tables, the {many} first and then the {others}.",
        ),
    ),
    "zh": Wordings(
        train=(
            "下面有两张表：一张是{many}，一张是{others}。",
            "下面第一张表列出{many}，第二张表列出{others}。",
            "我有一张{many}表，以及它所引用的{others}表。",
            "以下是我们导出的{many}数据和对应的{others}数据。",
        ),
        test=("请看这两份清单：{many}与{others}。", "我贴上两张表，先是{many}，然后是{others}。"),
    ),
}
RULES: Bilingual = {
    "en": Wordings(
        train=(
            'Reply with the answer alone unless I ask for steps; if the answer is not there, reply "{none}".',
            "Use nothing but the table. Give just the answer, unless I want to see the steps. "
            'Where it holds no answer, say "{none}".',
            'Answer briefly and from the table only. Should it not hold the answer, write "{none}".',
            'Rely on what is written there; reply "{none}" where that is not enough, and otherwise with the bare answer '
            "unless steps are asked for.",
        ),
        test=(
            'Keep to what is written there and be brief; where it says nothing on the matter, answer "{none}".',
            'No explanations unless I ask. If you cannot find it there, the reply is "{none}".',
        ),
    ),
    "zh": Wordings(
        train=(
            "除非我要求写出步骤，否则只需回答结果；如果找不到答案，请回答“{none}”。",
            "请只依据表格，直接给出答案，需要步骤时我会说明。若没有答案，请写“{none}”。",
            "请简短作答，并且只根据表格。找不到答案时，请回答“{none}”。",
            "请以表中所写为准；若不足以回答，请回复“{none}”，否则只写答案（除非要求步骤）。",
        ),
        test=(
            "请严格按表中内容简要作答；表中没有提到的，请回答“{none}”。",
            "除非我另行要求，不必解释。若在其中找不到，就回复“{none}”。",
        ),
    ),
}
STEPS: Bilingual = {
    "en": Wordings(
        train=(
            'Show your steps and end with a line "Answer: …".',
            'Work it out step by step; the last line should begin with "Answer:".',
            'Write down how you get there, and close with "Answer: …" on a line of its own.',
        ),
        test=('Explain each step, then finish with one line that reads "Answer: …".',),
    ),
    "zh": Wordings(
        train=(
            "请写出步骤，最后一行以“答案：”开头。",
            "请逐步推导，并在最后单独写一行“答案：…”。",
            "请说明过程，末行写成“答案：…”。",
        ),
        test=("请解释每一步，最后用一行“答案：…”收尾。",),
    ),
}


def response(answer: str, steps: tuple[str, ...], language: Language) -> str:
    """What the assistant says: the answer alone, or steps and then the answer in its fixed form."""
    return "\n".join([*steps, ANSWER[language] + answer]) if steps else answer


def none_of(language: Language) -> dict[str, str]:
    """The words for the rules: what to say where the table holds no answer."""
    return {"none": NOT_IN_TABLE[language]}
