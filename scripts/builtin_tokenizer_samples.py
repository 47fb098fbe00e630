"""Self-written training text in the shapes Longweave renders: tables in every format, questions, values, needles.

Values come from Faker's en_US and zh_CN providers; the sentences around them are ours. All of it is a pure function of
the seed and of Faker's version.
"""

from __future__ import annotations

import csv
import html
import io
import json
import uuid
from collections.abc import Callable, Iterator

# packing.draws may change; what this tokenizer was trained on may not.
from random import Random  # noqa: TID251

from faker import Faker

Table = tuple[list[str], list[list[str]]]

CHINESE_QUESTIONS = (
    "表中{a}最高的{b}是哪一个？", "{b}为“{v}”的那一行，{a}是多少？", "请问{v}的{a}是什么？",
    "哪些{b}的{a}超过{n}？请全部列出。", "{a}大于{n}的记录一共有多少条？", "所有{b}的{a}合计是多少？",
    "按{a}从高到低排序，前{k}名分别是谁？", "第{k}行的{a}是什么？", "{a}的平均值是多少？请保留两位小数。",
    "{v}和{w}相比，谁的{a}更高？高出多少？", "表格里有没有{b}叫“{v}”的记录？", "每个{b}各有多少条记录？",
    "请根据上面的表格回答：{v}对应的{a}是多少？", "把{a}最低的三个{b}按从小到大的顺序写出来，用逗号分隔。",
    "从上往下数，第{k}条记录的{b}是什么？", "在{y}年{m}月{d}日之后注册的用户有几位？",
    "结合两张表，{v}所在部门的负责人是谁？", "下面是一张表格，请先阅读，再回答后面的问题。",
    "{a}在{n}到{k}之间的有哪几行？", "如果表中没有答案，请回答“无法确定”。", "总共有几个不同的{b}？",
    "最后一行的{a}和{b}分别是什么？", "首先找到{b}为{v}的行，然后读出它的{a}，所以答案是{n}。",
    "逐行比较{a}：{v}为{n}，{w}为{k}，因此最大的是{v}。", "共计{k}条，答案：{n}。",
)  # fmt: skip
ENGLISH_QUESTIONS = (
    "What is the {a} of {v}?", "Which {b} has the highest {a}?", "How many rows have {a} greater than {n}?",
    "List every {b} whose {a} is {v}.", "What is the total {a} across all rows?",
    "Sort the rows by {a} in descending order and give the first {k}.", "Who has {b} {v}?",
    "Give the average {a}, rounded to two decimals.",
    "Compare {v} and {w}: which has the larger {a}, and by how much?", "What is in row {k}?",
    "Is there a row whose {b} is {v}? Answer yes or no.", "For each {b}, how many records are there?",
    "Here is a table. Read it, then answer.", "According to the table above, what is the {a} for {v}?",
    "Joining both tables on {b}, what is the {a} of {v}?", "The answer is {n}.",
    "If the table does not say, answer \"not in the table\".",
    "First find the row where {b} is {v}; its {a} is {n}, so the answer is {n}.",
    "The special magic number for {v} is: {n}.",
    "What is the special magic number for {v} mentioned in the provided text?",
    "The pass key is {n}. Remember it. {n} is the pass key.",
    "VAR X1 = {n}, VAR X2 = VAR X1: which variables are assigned the value {n}?",
    "The following is a dictionary of keys and values in JSON. What is the value for the key \"{v}\"?",
    "The three most frequent words are {v}.",
)  # fmt: skip
CHINESE_COLUMNS = {
    "姓名": "name", "城市": "city", "省份": "province", "地址": "address", "公司": "company", "职位": "job",
    "手机号": "phone_number", "电子邮箱": "email", "备注": "sentence", "出生日期": "chinese_date", "入职时间": "date",
    "销售额": "money", "单价（元）": "money", "数量": "count", "年龄": "count", "工资": "money", "编号": "code",
    "部门": "job", "客户": "name", "订单号": "code", "区县": "district", "得分": "decimal", "库存": "count",
    "状态": "chinese_state", "产品": "word", "评分": "decimal", "占比": "percent", "国家": "country",
}  # fmt: skip
ENGLISH_COLUMNS = {
    "name": "name", "city": "city", "state": "state", "address": "address", "company": "company", "job": "job",
    "phone": "phone_number", "email": "email", "notes": "sentence", "born": "date", "hired_at": "timestamp",
    "amount": "money", "unit_price": "decimal", "quantity": "count", "age": "count", "salary": "money", "id": "uuid",
    "department": "job", "customer": "name", "order_id": "code", "country": "country", "score": "decimal",
    "stock": "count", "status": "state_of_order", "product": "word", "share": "percent", "First Name": "first_name",
    "Last Name": "last_name", "Total": "money", "checksum": "hex", "website": "url", "ip": "ipv4",
}  # fmt: skip
FAKER_POOLS = {
    "en_US": ("name", "first_name", "last_name", "city", "state", "address", "company", "job", "phone_number",
              "sentence", "country", "email", "word", "street_address", "paragraph", "catch_phrase"),
    "zh_CN": ("name", "city", "province", "address", "company", "job", "phone_number", "email", "sentence",
              "district", "word", "country", "first_name", "last_name", "paragraph", "street_address",
              "company_suffix"),
}  # fmt: skip


def pools_of(locale: str, seed: int, size: int) -> dict[str, list[str]]:
    """So many values of each provider of one locale."""
    fake = Faker(locale)
    fake.seed_instance(seed)
    return {name: [str(getattr(fake, name)()).replace("\n", ", ") for _ in range(size)] for name in FAKER_POOLS[locale]}


def computed_value(kind: str, draw: Random) -> str:
    """A value that needs no pool: numbers, dates, codes."""
    year, month, day = draw.randint(1950, 2030), draw.randint(1, 12), draw.randint(1, 28)
    amount = round(draw.lognormvariate(6, 2), 2)
    makers: dict[str, Callable[[], str]] = {
        "date": lambda: draw.choice(
            [f"{year}-{month:02}-{day:02}", f"{month:02}/{day:02}/{year}", f"{year}/{month}/{day}"]
        ),
        "chinese_date": lambda: draw.choice([f"{year}年{month}月{day}日", f"{year}年{month:02}月{day:02}日"]),
        "timestamp": lambda: (
            f"{year}-{month:02}-{day:02}T{day % 24:02}:{draw.randrange(60):02}:{draw.randrange(60):02}Z"
        ),
        "money": lambda: draw.choice(
            [f"${amount:,.2f}", f"¥{amount:,.2f}", f"{amount:.2f}", f"{amount:,.2f}元", f"USD {amount:.0f}"]
        ),
        "decimal": lambda: f"{draw.uniform(0, 100):.{draw.randint(1, 4)}f}",
        "percent": lambda: f"{draw.uniform(-20, 120):.1f}%",
        "count": lambda: (
            f"{draw.randint(0, 10 ** draw.randint(1, 6)):,}" if draw.random() < 0.3 else str(draw.randint(0, 9999))
        ),
        "code": lambda: draw.choice("ABCDEFKPSX") + draw.choice("ABCMNRT") + "-" + str(draw.randint(1000, 999999)),
        "uuid": lambda: str(uuid.UUID(int=draw.getrandbits(128))),
        "hex": lambda: f"{draw.getrandbits(128):032x}",
        "url": lambda: (
            f"https://www.example.com/{draw.choice(['items', 'users', 'orders'])}/{draw.randint(1, 9999)}?page={day}"
        ),
        "ipv4": lambda: ".".join(str(draw.randrange(256)) for _ in range(4)),
        "state_of_order": lambda: draw.choice(
            ["pending", "shipped", "delivered", "cancelled", "active", "inactive", "true", "false"]
        ),
        "chinese_state": lambda: draw.choice(
            ["已完成", "待付款", "已发货", "已取消", "在职", "离职", "是", "否", "正常", "未知"]
        ),
    }
    return makers[kind]()


def draw_table(columns: dict[str, str], pools: dict[str, list[str]], draw: Random) -> Table:
    """A header of three to eight columns and up to thirty rows."""
    header = draw.sample(list(columns), draw.randint(3, 8))
    kinds = [columns[title] for title in header]
    rows = [
        [draw.choice(pools[kind]) if kind in pools else computed_value(kind, draw) for kind in kinds]
        for _ in range(draw.randint(5, 30))
    ]
    return header, rows


def markdown(table: Table) -> str:
    """A GitHub table, padded by one space."""
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def compact_markdown(table: Table) -> str:
    """A GitHub table without padding, columns centred."""
    header, rows = table
    return "".join("|" + "|".join(line) + "|\n" for line in [header, [":---:"] * len(header), *rows])


def separated(table: Table, delimiter: str) -> str:
    """CSV or TSV, by the delimiter."""
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows([table[0], *table[1]])
    return written.getvalue()


def json_records(table: Table, indent: int | None) -> str:
    """One JSON array of objects."""
    records = [dict(zip(table[0], row, strict=True)) for row in table[1]]
    return json.dumps(records, ensure_ascii=False, indent=indent) + "\n"


def json_lines(table: Table) -> str:
    """One compact JSON object a line."""
    records = [dict(zip(table[0], row, strict=True)) for row in table[1]]
    return "".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records)


def html_table(table: Table) -> str:
    """An indented HTML table."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in table[0])
    rows = "".join(
        "    <tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row) + "</tr>\n" for row in table[1]
    )
    return f"<table>\n  <thead>\n    <tr>{head}</tr>\n  </thead>\n  <tbody>\n{rows}  </tbody>\n</table>\n"


def key_values(table: Table, colon: str) -> str:
    """A block of "title: value" lines for each row."""
    blocks = ["\n".join(f"{t}{colon}{v}" for t, v in zip(table[0], row, strict=True)) for row in table[1]]
    return "\n\n".join(blocks) + "\n"


def question(template: str, table: Table, draw: Random) -> str:
    """A question template filled with titles and values of the table."""
    header, rows = table
    a, b = draw.sample(range(len(header)), 2)
    row, other = draw.choice(rows), draw.choice(rows)
    return template.format(
        a=header[a], b=header[b], v=row[b], w=other[b], n=row[a], k=draw.randint(2, 20),
        y=draw.randint(1990, 2030), m=draw.randint(1, 12), d=draw.randint(1, 28),
    )  # fmt: skip


def product_samples(seed: int, megabytes: float) -> Iterator[str]:
    """Tables, questions and loose values in English and Chinese, until so many megabytes of UTF-8 have been given."""
    draw = Random(seed)  # noqa: S311 - nothing here is a secret
    kinds = (
        (ENGLISH_COLUMNS, ENGLISH_QUESTIONS, pools_of("en_US", seed, 3000)),
        (CHINESE_COLUMNS, CHINESE_QUESTIONS, pools_of("zh_CN", seed, 6000)),
    )
    renderers: tuple[Callable[[Table], str], ...] = (
        markdown,
        compact_markdown,
        lambda t: separated(t, ","),
        lambda t: separated(t, "\t"),
        lambda t: json_records(t, None),
        lambda t: json_records(t, 2),
        json_lines,
        html_table,
        lambda t: key_values(t, ": "),
        lambda t: key_values(t, "："),
    )
    left = megabytes * 1_000_000
    while left > 0:
        columns, templates, pools = draw.choice(kinds)
        table = draw_table(columns, pools, draw)
        asked = [question(draw.choice(templates), table, draw) for _ in range(8)]
        prose = [draw.choice(pools[draw.choice(["sentence", "paragraph"])]) for _ in range(4)]
        text = draw.choice(renderers)(table) + "\n" + "\n".join(asked + prose) + "\n"
        left -= len(text.encode())
        yield text


def common_characters(times: int) -> Iterator[str]:
    """Each of the 3,755 common characters (GB 2312, first level) so many times, so that none is left in pieces."""
    for row in range(0xB0, 0xD8):
        for cell in range(0xA1, 0xFF):
            try:
                character = bytes((row, cell)).decode("gb2312")
            except UnicodeDecodeError:  # the last five cells of the level's last row are empty
                continue
            yield (character + "\n") * times
