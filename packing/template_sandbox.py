"""The sandbox chat templates run in: what transformers gives them, a fixed date for a clock, and bounds on work and size.

A template is somebody else's program. Jinja's sandbox keeps it away from Python; here its steps are counted (loops by their items,
calls and filters one each and more for large values) and no value may grow past a limit, so that none runs for ever or fills memory.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, ClassVar, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

STEPS = 4_000_000
"""Steps of one rendering: seconds of work, and a hundred for each of forty thousand messages."""
LARGEST = 1 << 25
"""Characters of a rendering, and of any text that a template makes on the way; items of any list."""
STEP_CHARACTERS = 1024
CALL_STEPS = 10
LARGE = 1 << 20
WEIGHED_CHARACTERS = 1 << 12
_INTEGER_BITS = 4096
_WIDTH = re.compile(r"\d{6,}")


class TemplateLimitError(jinja2.TemplateError):
    """A template that takes too many steps or makes too much."""


class Budget:
    """The steps that are left of a rendering, and what one costs: more once the template has made a large value, since any step may
    then compare or copy it."""

    def __init__(self) -> None:
        self.left = STEPS
        self.weight = 1

    def charge(self, steps: int, times: int = 1) -> None:
        """Count so many steps so many times; raises TemplateLimitError when none are left."""
        self.left -= times * max(steps, self.weight)
        if self.left < 0:
            raise TemplateLimitError(f"it takes more than {STEPS} steps")

    def made(self, value: Any) -> Any:
        """Pass on a value that the template has made; raises TemplateLimitError where it is too large."""
        size = _size(value)
        _limit(size)
        self.weight = max(self.weight, 1 + max(0, size - LARGE) // WEIGHED_CHARACTERS)
        return value


def _size(value: Any) -> int:
    """Characters or items of a value, 0 where it has none."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | range) else 0


def _steps(value: Any) -> int:
    """What passing over a value costs."""
    size = _size(value)
    return size // STEP_CHARACTERS if isinstance(value, str | bytes) else size


def _limit(size: int) -> None:
    if size > LARGEST:
        raise TemplateLimitError(f"it makes a text or list of more than {LARGEST} characters or items")


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for other tools; here its body is rendered as it stands."""

    tags: ClassVar[set[str]] = {"generation"}  # pyright: ignore[reportIncompatibleVariableOverride]

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with counted loops, calls, filters and operators. One rendering at a time: `budget` is its own."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols])
        self.budget = Budget()
        # Both draw random numbers: no row may depend on them.
        self.filters.pop("random", None)
        self.globals.pop("lipsum", None)
        for name, function in self.filters.items():
            self.filters[name] = self._counted_filter(name, function)
        self.filters["longweave_counted"] = self._counted_items
        self.filters["longweave_joined"] = self._joined
        self.filters["longweave_made"] = self._made

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(jinja2.nodes.For)):
            loop.iter = _filtered(loop.iter, "longweave_counted")
        for block in list(tree.find_all(jinja2.nodes.AssignBlock)):
            block.filter = jinja2.nodes.Filter(block.filter, "longweave_made", [], [], None, None, lineno=block.lineno)
        return _without_concat(tree)

    def as_written(self, source: str) -> jinja2.nodes.Template:
        """The syntax tree of a template that parses, without our filters around its loops and concatenations."""
        return super()._parse(source, None, None)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 (Jinja's own signature)
        """Call what a template calls, counted, its arguments looked at first: no single call may make too much."""
        self = __self
        owner = getattr(__obj, "__self__", None)
        self.budget.charge(CALL_STEPS + _steps(owner) + sum(_steps(value) for value in args))
        if isinstance(owner, str):
            _expect(getattr(__obj, "__name__", ""), owner, args, kwargs)
        return self.budget.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja's own guard of str.format, which hides the text it is bound to; looked at here."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        guarded, form = wrapped, value.__self__

        def counted(*args: Any, **kwargs: Any) -> str:
            _expect("format", form, args, kwargs)
            return guarded(*args, **kwargs)

        return counted

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator that can make much of little, its operands looked at first."""
        if operator == "+" and type(left) is str and type(right) is str:
            # Nearly all that templates do: the same bounds as below, in a quarter of the time.
            size = len(left) + len(right)
            self.budget.charge(1 + size // STEP_CHARACTERS)
            return left + right if size <= LARGE else self.budget.made(left + right)
        self.budget.charge(1 + _steps(left) + _steps(right))
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, int) and _size(other):
                    _limit(max(one, 0) * _size(other))
        elif operator == "+":
            _limit(_size(left) + _size(right))
        elif operator == "%" and isinstance(left, str):
            _limit_format(left, right if isinstance(right, tuple) else (right,))
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (max(right, 1) if operator == "**" else 1) + right.bit_length()
            if bits > _INTEGER_BITS and operator != "%":
                raise TemplateLimitError("it makes a number that is too large")
        return self.budget.made(super().call_binop(context, operator, left, right))

    def _counted_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            value = args[passed] if len(args) > passed else None
            self.budget.charge(1 + _steps(value))
            _expect(name, value, args[passed + 1 :], kwargs)
            return self.budget.made(function(*args, **kwargs))

        return counted

    def _counted_items(self, items: Any) -> Any:
        """What a loop runs over, its items counted: beforehand where they can be, so that the loop sees the very same value."""
        if isinstance(items, str | list | tuple | dict | range):
            self.budget.charge(1, len(items))
            return items
        return self._one_by_one(items) if isinstance(items, Iterable) else items

    def _one_by_one(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.budget.charge(1)
            yield item

    def _made(self, text: str) -> str:
        self.budget.charge(1 + len(text) // STEP_CHARACTERS)
        made: str = self.budget.made(text)
        return made

    def _joined(self, values: Sequence[Any]) -> str:
        texts = [str(value) for value in values]
        size = sum(map(len, texts))
        self.budget.charge(1 + size // STEP_CHARACTERS)
        _limit(size)
        return self.budget.made("".join(texts))


def _expect(name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse a text method or filter whose result, or whose padding, is known beforehand to be too large."""
    given = [*args, *kwargs.values()]
    if any(isinstance(item, int) and abs(item) > LARGEST for item in given):
        raise TemplateLimitError(f"{name} is given a number that is too large")
    lengths = [_size(item) for item in given if isinstance(item, str)]
    if name == "replace" and len(lengths) > 1 and isinstance(value, str):
        _limit(len(value) + (value.count(given[0]) if given[0] else len(value) + 1) * lengths[1])
    elif name == "join":
        parts = next((item for item in (*given, value) if isinstance(item, list | tuple)), ())
        separator = max(lengths[:1] or [_size(value) if isinstance(value, str) else 0])
        _limit(sum(map(_size, parts)) + separator * len(parts))
    elif name in {"indent", "wordwrap", "expandtabs", "translate"} and isinstance(value, str):
        # At most one copy of the widest argument for every character, or for every line.
        widths = [abs(item) for item in given if isinstance(item, int)] + lengths
        copies = value.count("\n") + 1 if name in {"indent", "wordwrap"} else len(value)
        _limit(copies * max(widths, default=1))
    elif name in {"format", "format_map"} and isinstance(value, str):
        _limit_format(value, given)


def _limit_format(form: str, given: Sequence[Any]) -> None:
    """Refuse a format whose widths, spelled out or taken from the arguments, pad by millions."""
    if _WIDTH.search(form) or any(isinstance(item, int) and abs(item) > 10**6 and "*" in form for item in given):
        raise TemplateLimitError("it formats with a width that is too large")
    _limit(len(form) + sum(_size(item) for item in given) * max(1, form.count("{") + form.count("%")))


def _filtered(node: jinja2.nodes.Node, name: str) -> jinja2.nodes.Expr:
    """The value of an expression passed through one of our filters."""
    return jinja2.nodes.Filter(cast(jinja2.nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


def _without_concat(node: jinja2.nodes.Node) -> Any:
    """The tree with every `a ~ b` as a filter that counts what it makes."""
    for field, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, field, [_without_concat(v) if isinstance(v, jinja2.nodes.Node) else v for v in value])
        elif isinstance(value, jinja2.nodes.Node):
            setattr(node, field, _without_concat(value))
    if isinstance(node, jinja2.nodes.Concat):
        return _filtered(jinja2.nodes.List(node.nodes, lineno=node.lineno), "longweave_joined")
    return node


def environment(today: date) -> TemplateEnvironment:
    """The environment that transformers gives chat templates, with the spec's date for a clock (a test compares the two)."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: Any = None,
        indent: Any = None,
        separators: Any = None,
        sort_keys: Any = None,
    ) -> str:
        if isinstance(indent, int) and indent > 1000:
            raise TemplateLimitError("tojson is given an indent that is too large")
        return json.dumps(
            value, ensure_ascii=bool(ensure_ascii), indent=indent, separators=separators, sort_keys=bool(sort_keys)
        )

    def strftime_now(form: str) -> str:
        return today.strftime(form)

    made = TemplateEnvironment()
    made.filters["tojson"] = tojson
    functions: dict[str, Any] = {"raise_exception": refuse, "strftime_now": strftime_now}
    made.globals.update(functions)
    return made


def rendered(template: jinja2.Template, made: TemplateEnvironment, variables: Mapping[str, Any]) -> str:
    """One rendering with a fresh budget; raises TemplateLimitError where it is used up, and what the template raises."""
    made.budget = Budget()
    pieces: list[str] = []
    size = 0
    for piece in template.generate(**variables):
        size += len(piece)
        _limit(size)
        pieces.append(piece)
    return "".join(pieces)
