"""LongBench's tasks: how each is asked, how long an answer may be, and how it is scored.

Metrics, answer lengths and which tasks go without a chat template are the published ones; the prompts are our own words.
A directory's dataset2prompt.json and dataset2maxlen.json, as LongBench's repository has them in `config`, take their place.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.evaluation import longbench_metrics as metrics
from training.evaluation.longbench_metrics import Metric

QUESTION = (
    "Read the text and answer the question from it, as shortly as you can and without explaining.\n\n"
    "Text:\n{context}\n\nQuestion: {input}\nAnswer:"
)
QUESTION_ZH = "阅读下面的文章，根据它简短地回答问题，不要解释。\n\n文章：\n{context}\n\n问题：{input}\n回答："
SUMMARY = "Read the text and sum it up in one page.\n\nText:\n{context}\n\nSummary:"
SUMMARY_ZH = "阅读下面的会议记录，写一段总结。\n\n会议记录：\n{context}\n\n总结："
SUMMARY_ASKED = (
    "Read the record of a meeting and answer what is asked about it in a few sentences.\n\n"
    "Record:\n{context}\n\nAsked: {input}\nAnswer:"
)
EXAMPLES = "Go on as the examples do.\n\n{context}\n{input}"
EXAMPLES_ZH = "请仿照例子继续。\n\n{context}\n{input}"
COUNT = (
    "Some of the paragraphs below stand there more than once. Say how many different ones there are, with a number "
    "alone.\n\n{context}\n\nNumber:"
)
RETRIEVAL = (
    "Below are numbered paragraphs, then a summary of one of them. Say which, as in: Paragraph 1.\n\n"
    "{context}\n\nSummary: {input}\n\nIt is:"
)
RETRIEVAL_ZH = (
    "以下是若干编号的段落，之后是其中一段的摘要。请回答是哪一段，例如：段落1。\n\n{context}\n\n摘要：{input}\n\n答案："
)
CODE = "Write the next line of the code below.\n{context}{input}Next line:\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task; `{context}` and `{input}` of `prompt` are a row's. `plain`: asked without the chat template.
    `first_line`: of an answer the first line counts."""

    metric: Metric
    name: str
    prompt: str
    budget: int
    plain: bool = False
    first_line: bool = False


def _task(metric: Metric, prompt: str, budget: int, *, plain: bool = False, first_line: bool = False) -> Task:
    name = metric.__name__
    return Task(metric=metric, name=name, prompt=prompt, budget=budget, plain=plain, first_line=first_line)


TASKS: dict[str, Task] = {
    "narrativeqa": _task(metrics.qa_f1, QUESTION, 128),
    "qasper": _task(metrics.qa_f1, QUESTION, 128),
    "multifieldqa_en": _task(metrics.qa_f1, QUESTION, 64),
    "multifieldqa_zh": _task(metrics.qa_f1_zh, QUESTION_ZH, 64),
    "hotpotqa": _task(metrics.qa_f1, QUESTION, 32),
    "2wikimqa": _task(metrics.qa_f1, QUESTION, 32),
    "musique": _task(metrics.qa_f1, QUESTION, 32),
    "dureader": _task(metrics.rouge_l_zh, QUESTION_ZH, 128),
    "gov_report": _task(metrics.rouge_l, SUMMARY, 512),
    "qmsum": _task(metrics.rouge_l, SUMMARY_ASKED, 512),
    "multi_news": _task(metrics.rouge_l, SUMMARY, 512),
    "vcsum": _task(metrics.rouge_l_zh, SUMMARY_ZH, 512),
    "trec": _task(metrics.classification, EXAMPLES, 64, plain=True, first_line=True),
    "triviaqa": _task(metrics.qa_f1, EXAMPLES, 32, plain=True, first_line=True),
    "samsum": _task(metrics.rouge_l, EXAMPLES, 128, plain=True, first_line=True),
    "lsht": _task(metrics.classification, EXAMPLES_ZH, 64, plain=True, first_line=True),
    "passage_count": _task(metrics.count, COUNT, 32),
    "passage_retrieval_en": _task(metrics.retrieval, RETRIEVAL, 32),
    "passage_retrieval_zh": _task(metrics.retrieval, RETRIEVAL_ZH, 32),
    "lcc": _task(metrics.code_similarity, CODE, 64, plain=True),
    "repobench-p": _task(metrics.code_similarity, CODE, 64, plain=True),
}
