"""Every task by its name in a spec."""

from __future__ import annotations

from synth.tables.question import Task
from synth.tables.tasks.aggregate import AGGREGATE
from synth.tables.tasks.compare import COMPARE
from synth.tables.tasks.count import COUNT
from synth.tables.tasks.extreme import EXTREME
from synth.tables.tasks.filter import FILTER
from synth.tables.tasks.group import GROUP
from synth.tables.tasks.join import JOIN
from synth.tables.tasks.lookup import LOOKUP
from synth.tables.tasks.membership import MEMBERSHIP
from synth.tables.tasks.position import POSITION
from synth.tables.tasks.reverse_lookup import REVERSE_LOOKUP
from synth.tables.tasks.row import ROW
from synth.tables.tasks.sort import SORT
from synth.tables.tasks.top_k import TOP_K

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        LOOKUP,
        REVERSE_LOOKUP,
        ROW,
        FILTER,
        COUNT,
        AGGREGATE,
        EXTREME,
        COMPARE,
        SORT,
        TOP_K,
        GROUP,
        JOIN,
        POSITION,
        MEMBERSHIP,
    )
}
