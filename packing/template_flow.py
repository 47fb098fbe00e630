"""Whether a chat template does nothing with contents but write them, as they are or trimmed: read off its syntax tree.

Where that holds, what a template writes around contents depends on the roles alone, and a row need not be rendered to be known. The
analysis knows a few harmless forms and says no to everything else: to a test, comparison, filter, slice or call that could see a content.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from jinja2 import nodes

from packing.template_sandbox import TemplateEnvironment


class Holds(IntEnum):
    """What a value may hold of the conversation, the later ones more: nothing of it but roles and lengths; a content, as it is or trimmed;
    text with contents in it; a message; some messages."""

    NOTHING, CONTENT, TEXT, MESSAGE, MESSAGES = range(5)


class _Unclear(Exception):  # noqa: N818 (no error of the program: the analysis says no)
    """A form that the analysis does not know."""


KIND_TESTS = frozenset(
    {"defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean"}
)
"""Tests that see of which type a value is, and nothing else: contents are strings here."""
LOOP_FIELDS = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})


def only_writes_contents(environment: TemplateEnvironment, source: str) -> bool:
    """Whether messages of nothing but a role and a content, a string, are written by this template with text around them that does not
    depend on their contents. `source` must parse."""
    tree = environment.as_written(source)
    flow = _Flow()
    try:
        # Names are looked at until nothing is learnt about them any more: a loop may use what its end assigns.
        while flow.learns():
            flow.body(tree.body)
    except _Unclear:
        return False
    return True


class _Flow:
    """What every name may hold, over the whole template whatever the order and the scope."""

    def __init__(self) -> None:
        self._names: dict[str, Holds] = {"messages": Holds.MESSAGES}
        self._before: dict[str, Holds] | None = None

    def learns(self) -> bool:
        """Whether the last pass has told something new."""
        changed, self._before = self._before != self._names, dict(self._names)
        return changed

    def body(self, statements: Sequence[nodes.Node]) -> None:
        """Go through statements; raises _Unclear."""
        for node in statements:
            match node:
                case nodes.Output():
                    for part in node.nodes:
                        self._at_most(part, Holds.TEXT)
                case nodes.If():
                    self._at_most(node.test, Holds.NOTHING)
                    self.body([*node.body, *node.elif_, *node.else_])
                case nodes.For() if not node.recursive:
                    self._loop(node)
                case nodes.Assign():
                    self._assign(node.target, self._holds(node.node))
                case nodes.Continue() | nodes.Break():
                    pass
                case _:
                    raise _Unclear

    def _loop(self, node: nodes.For) -> None:
        over = self._holds(node.iter)
        if over not in (Holds.NOTHING, Holds.MESSAGES):
            raise _Unclear
        self._assign(node.target, Holds.MESSAGE if over is Holds.MESSAGES else Holds.NOTHING)
        if node.test is not None:
            self._at_most(node.test, Holds.NOTHING)
        self.body([*node.body, *node.else_])

    def _assign(self, target: nodes.Node, value: Holds) -> None:
        if isinstance(target, nodes.Name) and target.name != "loop" and value is not Holds.TEXT:
            known = self._names.get(target.name, value)
            if known is not value and max(known, value) > Holds.CONTENT:
                raise _Unclear
            self._names[target.name] = max(known, value)
        elif value is not Holds.NOTHING or not isinstance(target, nodes.NSRef | nodes.Tuple):
            raise _Unclear
        elif isinstance(target, nodes.Tuple):
            for item in target.items:
                self._assign(item, value)

    def _at_most(self, node: nodes.Node, most: Holds) -> Holds:
        found = self._holds(node)
        if found > most:
            raise _Unclear
        return found

    def _holds(self, node: nodes.Node) -> Holds:  # noqa: C901 (one case a form of the grammar)
        match node:
            case nodes.Name():
                if node.name == "loop":
                    raise _Unclear
                return self._names.get(node.name, Holds.NOTHING)
            case nodes.TemplateData() | nodes.Const():
                return Holds.NOTHING
            case nodes.Getattr():
                return self._field(node.node, node.attr)
            case nodes.Getitem():
                return self._item(node)
            case nodes.Filter() if node.node is not None:
                return self._filter(node, node.node)
            case nodes.Test():
                return self._test(node)
            case nodes.Compare():
                return self._compare(node)
            case nodes.Add():
                return self._joined([node.left, node.right])
            case nodes.Concat():
                return self._joined(node.nodes)
            case nodes.Or(right=nodes.Const(value="")):
                # For a string that is the string.
                return self._at_most(node.left, Holds.CONTENT)
            case nodes.CondExpr():
                self._at_most(node.test, Holds.NOTHING)
                ends = [node.expr1] + ([node.expr2] if node.expr2 is not None else [])
                return max(self._at_most(end, Holds.TEXT) for end in ends)
            case _:
                return self._harmless(node)

    def _harmless(self, node: nodes.Node) -> Holds:
        """An operation on values that hold nothing."""
        known = (
            nodes.BinExpr | nodes.UnaryExpr | nodes.Call | nodes.List | nodes.Tuple
            | nodes.Dict | nodes.Pair | nodes.Keyword | nodes.Slice
        )  # fmt: skip
        if not isinstance(node, known):
            raise _Unclear
        for child in node.iter_child_nodes():
            self._at_most(child, Holds.NOTHING)
        return Holds.NOTHING

    def _joined(self, parts: Sequence[nodes.Node]) -> Holds:
        return Holds.TEXT if max(self._at_most(part, Holds.TEXT) for part in parts) > Holds.NOTHING else Holds.NOTHING

    def _field(self, owner: nodes.Node, name: str) -> Holds:
        if isinstance(owner, nodes.Name) and owner.name == "loop":
            if name in LOOP_FIELDS:
                return Holds.NOTHING
            raise _Unclear
        held = self._holds(owner)
        if held is Holds.NOTHING:
            return held
        # A method of dict, `items` say, would hand out the contents.
        if held is not Holds.MESSAGE or hasattr(dict, name):
            raise _Unclear
        return Holds.CONTENT if name == "content" else Holds.NOTHING

    def _item(self, node: nodes.Getitem) -> Holds:
        key = node.arg
        if isinstance(key, nodes.Const) and isinstance(key.value, str):
            return self._field(node.node, key.value)
        held = self._holds(node.node)
        self._at_most(key, Holds.NOTHING)
        if held is Holds.NOTHING:
            return held
        if held is not Holds.MESSAGES:
            raise _Unclear
        if isinstance(key, nodes.Slice):
            return held
        # Only a number picks a message: a name might be that of a method of list.
        number = key.node if isinstance(key, nodes.Neg) else key
        if isinstance(number, nodes.Const) and isinstance(number.value, int):
            return Holds.MESSAGE
        raise _Unclear

    def _filter(self, node: nodes.Filter, value: nodes.Node) -> Holds:
        held = self._holds(value)
        bare = not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
        if held is Holds.CONTENT and (
            (node.name == "trim" and bare) or (node.name in ("default", "d") and _is_empty(node))
        ):
            return held
        if held is Holds.MESSAGES and node.name in ("length", "count") and bare:
            return Holds.NOTHING
        return self._harmless_call(node, held)

    def _test(self, node: nodes.Test) -> Holds:
        held = self._holds(node.node)
        return Holds.NOTHING if node.name in KIND_TESTS else self._harmless_call(node, held)

    def _harmless_call(self, node: nodes.Filter | nodes.Test, held: Holds) -> Holds:
        for given in (*node.args, *node.kwargs, node.dyn_args, node.dyn_kwargs):
            if given is not None:
                self._at_most(given.value if isinstance(given, nodes.Keyword) else given, Holds.NOTHING)
        if held is not Holds.NOTHING:
            raise _Unclear
        return held

    def _compare(self, node: nodes.Compare) -> Holds:
        self._at_most(node.expr, Holds.NOTHING)
        for operand in node.ops:
            held = self._holds(operand.expr)
            # Whether a message has a field.
            has = held is Holds.MESSAGE and operand.op in ("in", "notin") and isinstance(node.expr, nodes.Const)
            if held is not Holds.NOTHING and not (has and len(node.ops) == 1):
                raise _Unclear
        return Holds.NOTHING


def _is_empty(node: nodes.Filter) -> bool:
    """Whether the filter `default` has nothing but the empty text to put in the place of a content, which then is the content."""
    given = [argument.value if isinstance(argument, nodes.Const) else None for argument in node.args]
    return not (node.kwargs or node.dyn_args or node.dyn_kwargs) and len(given) <= 2 and (not given or given[0] == "")
