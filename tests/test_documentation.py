"""The documentation names everything there is: a new setting, field, command or column without a word fails here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packing.dataset.schema import CIP, MIXTURE, NEEDLE, SKIPALIGN, SYNL
from packing.positions import REASONS
from service.cli import COMMANDS
from service.kinds import KINDS
from synth.audit.evaluate import STEPS
from synth.needles import export, registry
from synth.tables.render.formats import FORMATS
from synth.tables.schemas import catalogue
from synth.tables.tasks.catalogue import TASKS
from tests.service.support import settings_in

SCHEMAS = {"cip": CIP, "mixture": MIXTURE, "needle": NEEDLE, "skipalign": SKIPALIGN, "synl": SYNL}
ROOT = Path(__file__).parent.parent
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packing/builtin_tokenizer/*.md")])


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_command_is_documented():
    words = text("docs/service.md")
    assert [name for name in COMMANDS if f"`{name}" not in words and f"`longweave {name}" not in words] == []


def test_every_setting_is_documented():
    code = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    names = set(re.findall(r"LONGWEAVE_[A-Z_]+[A-Z]", code))
    assert len(names) > 10
    assert sorted(name for name in names if f"`{name}`" not in text("docs/service.md")) == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_and_column_of_a_kind_is_documented(kind):
    words = text(f"docs/{kind}.md")
    fields = set(KINDS[kind].Spec.model_fields)
    assert len(fields) > 20
    columns = set(SCHEMAS[kind].names) - (set(SKIPALIGN.names) if kind == "mixture" else set())
    missing = {name for name in fields | columns if f"`{name}`" not in words}
    assert missing == set()
    assert (ROOT / f"examples/{kind}.yaml").exists()


def test_every_reason_not_to_skip_is_documented():
    words = text("docs/skipalign.md")
    assert {reason for reason in REASONS if reason and f"`{reason}`" not in words} == set()


def test_every_task_format_schema_and_step_of_synl_is_documented():
    words = text("docs/synl.md")
    assert {name for name in {*TASKS, *FORMATS, *STEPS} if f"`{name}`" not in words} == set()
    seconds = [name for name, schema in catalogue.SCHEMAS.items() if schema.second is not None]
    assert f"needs one with a second table: {', '.join(seconds)} |" in words
    assert f"{len(catalogue.SCHEMAS)} schemas" in words


def test_every_task_format_and_budget_of_needles_is_documented():
    words = text("docs/needle.md")
    names = {*registry.TASKS, *registry.RULER, *export.FORMATS}
    assert len(names) > 25
    assert {name for name in names if f"`{name}`" not in words} == set()
    for name, task in registry.TASKS.items():
        assert re.search(
            rf"^\| `{name}` \| .* \| {task.budget} \| {'yes' if task.depth else '(spread.*|none)'} \|",
            words,
            re.MULTILINE,
        )


def test_every_route_is_documented(tmp_path):
    from service.app import create_app
    from service.services import Services

    services = Services.open(settings_in(tmp_path))
    paths = create_app(services.settings, services).openapi()["paths"]
    services.close()
    words = text("docs/service.md")
    assert len(paths) > 15
    last = {
        path: "/" + [step for step in path.split("/") if step and "{" not in step][-1] for path in paths if path != "/"
    }
    assert sorted(path for path, step in last.items() if step not in words) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")) if "://" not in link]
    assert all((path.parent / link).exists() for link in links), links


def test_the_examples_in_the_readme_are_there():
    words = text("README.md")
    for name in re.findall(r"examples/\S+\.(?:yaml|py)", words):
        assert (ROOT / name).exists(), name
    assert "examples/skipalign.yaml" in words
