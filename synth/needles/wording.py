"""What the tasks say, by locale. RULER's and InfiniteBench's own wordings in English (Apache-2.0, MIT), translated for Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a task is put: before the context, behind it, and how the answer begins."""

    head: str
    tail: str
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The texts of one locale. Heads end with a line's end, tails begin with a letter: borders where tokens add up."""

    needle: str
    kinds: Mapping[str, tuple[str, str]]
    one: Asking
    many: Asking
    listed: str
    passkey: Asking
    passkey_needle: str
    number: Asking
    number_needle: str
    pairs: Asking
    dictionary: Asking
    dictionary_label: str
    dictionary_answer: str
    variables: Asking
    assigned: str
    passed_on: str
    common: Asking
    frequent: Asking
    walks: Asking
    rounds: Asking
    round: str
    ordinals: tuple[str, ...]
    genres: tuple[str, ...]
    hidden: Asking
    documents: Asking
    document_label: str


WORDING = {
    "en_US": Wording(
        needle="One of the special magic {kind} for {key} is: {value}.",
        kinds={"numbers": ("numbers", "number"), "words": ("words", "word"), "uuids": ("uuids", "uuid")},
        one=Asking(
            head="A special magic {kind} is hidden within the following text. Make sure to memorize it. I will quiz you about the "
            "{kind} afterwards.\n",
            tail="What is the special magic {kind} for {query} mentioned in the provided text?",
            prefix=" The special magic {kind} for {query} mentioned in the provided text is",
        ),
        many=Asking(
            head="Some special magic {kind} are hidden within the following text. Make sure to memorize it. I will quiz you about the "
            "{kind} afterwards.\n",
            tail="What are all the special magic {kind} for {query} mentioned in the provided text?",
            prefix=" The special magic {kind} for {query} mentioned in the provided text are",
        ),
        listed="{first}, and {last}",
        passkey=Asking(
            head="There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz you about "
            "the important information there.\n",
            tail="What is the pass key?",
            prefix=" The pass key is",
        ),
        passkey_needle="The pass key is {value}. Remember it. {value} is the pass key.",
        number=Asking(
            head="There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz you about "
            "the important information there.\n",
            tail="What is the sequence of digits?",
            prefix=" The sequence of digits is",
        ),
        number_needle="The sequence of digits is {value}. Remember it. {value} is the sequence of digits.",
        pairs=Asking(
            head="Extract the value corresponding to the specified key in the JSON object below.\nJSON data:\n{{",
            tail='Key: "{query}"',
            prefix="\nThe value associated with the specified key is:",
        ),
        dictionary=Asking(
            head="Do a task using the list of dictionaries below.\n",
            tail="Above is a list of dictionaries such that each key and value is an integer. Report the value of key {query} and the "
            "dictionary it is in.",
            prefix=" The value of key {query} is",
        ),
        dictionary_label="Dictionary [{number}]",
        dictionary_answer="The value of key {query} is {value} and it is in Dictionary [{number}].",
        variables=Asking(
            head="Memorize and track the chain(s) of variable assignment hidden in the following text.\n",
            tail="Question: Find all variables that are assigned the value {query} in the text above.",
            prefix=" Answer: According to the chain(s) of variable assignment in the text above, {count} variables are assigned the "
            "value {query}, they are:",
        ),
        assigned="VAR {name} = {value}",
        passed_on="VAR {name} = VAR {other}",
        common=Asking(
            head="Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear "
            "most often.\n",
            tail="Question: What are the {count} most common words in the above list?",
            prefix=" Answer: The top {count} words that appear most often in the list are:",
        ),
        frequent=Asking(
            head="Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
            "coded words.\n",
            tail="Question: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently appeared "
            "words in the above coded text?",
            prefix=" Answer: According to the coded text above, the three most frequently appeared words are:",
        ),
        walks=Asking(
            head="Below is a list of directed edges of a graph, one on a line. I will ask you which nodes can be reached.\n",
            tail="Question: Starting at node {query}, which nodes are reached by walks of exactly two edges? Name all of them.",
            prefix=" Answer: The nodes are:",
        ),
        rounds=Asking(
            head="Below is a conversation between a user and an assistant. Afterwards I will ask you to repeat one of the replies.\n",
            tail='Question: Repeat, word for word, the {ordinal} {genre} that the assistant wrote on the subject of "{subject}".',
            prefix=" Answer: The {ordinal} {genre} on that subject is:",
        ),
        round='User: Write a {genre} on the subject of "{subject}". Assistant: {text}\n',
        ordinals=("first", "second", "third", "fourth"),
        genres=(
            "poem",
            "letter",
            "speech",
            "riddle",
            "legend",
            "diary entry",
            "postcard",
            "review",
            "song",
            "prayer",
            "telegram",
            "toast",
            "fable",
            "sermon",
            "joke",
            "news item",
        ),
        hidden=Asking(
            head="Read the following text carefully. I will ask you about one of the people in it afterwards.\n",
            tail="Question: {query} Answer with the name only.",
            prefix=" Answer:",
        ),
        documents=Asking(
            head="Answer the question based on the given documents. Only give me the answer and do not output any other words.\n"
            "The following are given documents.\n",
            tail="Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
            "Question: {query}",
            prefix=" Answer:",
        ),
        document_label="Document {number}:\n",
    ),
    "zh_CN": Wording(
        needle="{key}的特殊魔法{kind}之一是：{value}。",
        kinds={"numbers": ("数字", "数字"), "words": ("词语", "词语"), "uuids": ("编码", "编码")},
        one=Asking(
            head="下面的文字里藏着一个特殊的魔法{kind}。请务必记住它，之后我会就这个{kind}提问。\n",
            tail="上文提到的{query}的特殊魔法{kind}是什么？",
            prefix="上文提到的{query}的特殊魔法{kind}是：",
        ),
        many=Asking(
            head="下面的文字里藏着一些特殊的魔法{kind}。请务必记住它们，之后我会就这些{kind}提问。\n",
            tail="上文提到的{query}的所有特殊魔法{kind}是什么？",
            prefix="上文提到的{query}的特殊魔法{kind}是：",
        ),
        listed="{first}和{last}",
        passkey=Asking(
            head="在大量无关的文字中藏着一条重要的信息。请找到并记住它，之后我会就这条信息提问。\n",
            tail="通行密码是什么？",
            prefix="通行密码是：",
        ),
        passkey_needle="通行密码是{value}。请记住它。{value}就是通行密码。",
        number=Asking(
            head="在大量无关的文字中藏着一条重要的信息。请找到并记住它，之后我会就这条信息提问。\n",
            tail="那串数字是什么？",
            prefix="那串数字是：",
        ),
        number_needle="那串数字是{value}。请记住它。{value}就是那串数字。",
        pairs=Asking(
            head="从下面的JSON对象中找出指定键所对应的值。\nJSON数据：\n{{",
            tail="键：“{query}”",
            prefix="\n指定键所对应的值是：",
        ),
        dictionary=Asking(
            head="请根据下面的字典列表完成任务。\n",
            tail="以上是一组字典，其中的键和值都是整数。请报告键{query}的值，以及它在哪个字典里。",
            prefix="键{query}的值是",
        ),
        dictionary_label="字典[{number}]",
        dictionary_answer="键{query}的值是{value}，它在字典[{number}]里。",
        variables=Asking(
            head="请记住并跟踪下文中隐藏的变量赋值链。\n",
            tail="问题：找出上文中所有被赋值为{query}的变量。",
            prefix="答案：根据上文中的变量赋值链，共有{count}个变量被赋值为{query}，它们是：",
        ),
        assigned="VAR {name} = {value}",
        passed_on="VAR {name} = VAR {other}",
        common=Asking(
            head="下面是一个编了号的词语列表，其中有些词语比其他的出现得更多。请记住出现得最多的词语。\n",
            tail="问题：上面的列表中最常见的{count}个词语是什么？",
            prefix="答案：列表中出现得最多的{count}个词语是：",
        ),
        frequent=Asking(
            head="阅读下面的编码文本，记录每个编码词出现的次数，找出出现得最多的三个编码词。\n",
            tail="问题：不要解释，不要理会“....”。上面的编码文本中出现得最多的三个词是什么？",
            prefix="答案：根据上面的编码文本，出现得最多的三个词是：",
        ),
        walks=Asking(
            head="下面是一个图的有向边列表，每行一条边。之后我会问你哪些节点可以到达。\n",
            tail="问题：从节点{query}出发，恰好经过两条边能到达哪些节点？请全部列出。",
            prefix="答案：这些节点是：",
        ),
        rounds=Asking(
            head="下面是用户和助手的一段对话。之后我会请你重复其中的一个回答。\n",
            tail="问题：请一字不差地重复助手写的第{ordinal}{genre}，它的主题是“{subject}”。",
            prefix="答案：以“{subject}”为主题的第{ordinal}{genre}是：",
        ),
        round="用户：请写{genre}，主题是“{subject}”。助手：{text}\n",
        ordinals=("一", "二", "三", "四"),
        genres=(
            "首诗",
            "封信",
            "篇演讲",
            "个谜语",
            "段传说",
            "篇日记",
            "张明信片",
            "篇评论",
            "首歌",
            "封电报",
            "则寓言",
            "个笑话",
        ),
        hidden=Asking(
            head="请仔细阅读下面的文字，之后我会就其中的一个人提问。\n",
            tail="问题：{query}只回答名字。",
            prefix="答案：",
        ),
        documents=Asking(
            head="请根据给出的文档回答问题。只给出答案，不要输出其他内容。\n以下是给出的文档。\n",
            tail="请根据给出的文档回答问题。只给出答案，不要输出其他内容。\n\n问题：{query}",
            prefix="答案：",
        ),
        document_label="文档{number}：\n",
    ),
}
