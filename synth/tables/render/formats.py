"""Every format by its name in a spec; where one has two forms, a conversation draws one of them."""

from __future__ import annotations

from synth.tables.render.csv import CSV
from synth.tables.render.format import Format
from synth.tables.render.html import HTML
from synth.tables.render.json import JSON_ARRAY, JSON_LINES
from synth.tables.render.key_value import KEY_VALUE
from synth.tables.render.markdown import MARKDOWN
from synth.tables.render.tsv import TSV

FORMATS: dict[str, tuple[Format, ...]] = {
    "markdown": (MARKDOWN,),
    "csv": (CSV,),
    "tsv": (TSV,),
    "json": (JSON_ARRAY, JSON_LINES),
    "html": (HTML,),
    "key_value": (KEY_VALUE,),
}
