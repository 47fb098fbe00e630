"""The Dockerfile as instructions by stage, and a builder of ours that does what they say below a folder instead of in a container."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.stack.compose import ROOT

DOCKERFILE = ROOT / "Dockerfile"
KNOWN = ("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "ENTRYPOINT", "CMD")


@dataclass(frozen=True)
class Instruction:
    """One instruction with what stands behind it, its continued lines joined."""

    word: str
    text: str


@dataclass
class Stage:
    """A stage: what it is made from, by what name, and its instructions."""

    name: str
    base: str
    steps: list[Instruction] = field(default_factory=list)


def read_dockerfile(text: str) -> list[Stage]:
    """The stages in their order; fails for an instruction that the builder below does not know."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        assert word in KNOWN, f"{word} is new: say here what it does"
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name, base))
        else:
            stages[-1].steps.append(Instruction(word, rest))
    return stages


@dataclass
class Builder:
    """Does every COPY and RUN below `folder`. `root`, a link, is the root directory of the stage that is at work, so that what a
    stage is copied from has the same paths. RUN sees `environ`, and before all others the commands in `shims`."""

    folder: Path
    environ: dict[str, str]
    shims: dict[str, str] = field(default_factory=dict)
    done: list[Instruction] = field(default_factory=list)
    workdir: str = "/"

    @property
    def root(self) -> Path:
        return self.folder / "image"

    def stage_root(self, name: str) -> Path:
        return self.folder / "stages" / name

    def build(self, stage: Stage, known: set[str]) -> None:
        place = self.stage_root(stage.name)
        if stage.base in known:
            shutil.copytree(self.stage_root(stage.base), place, symlinks=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            self.workdir = "/"
        self.enter(stage)
        for step in stage.steps:
            if step.word == "WORKDIR":
                self.workdir = step.text
                self.inside(step.text).mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY":
                self.copy(step.text)
            elif step.word == "RUN":
                self.run(step.text)
            else:
                continue
            self.done.append(step)

    def enter(self, stage: Stage) -> None:
        self.root.unlink(missing_ok=True)
        self.root.symlink_to(self.stage_root(stage.name))

    def inside(self, path: str) -> Path:
        """Where a path of the image is, seen from the stage's root and its working directory."""
        return self.root / str(PurePosixPath(self.workdir) / path).lstrip("/")

    def copy(self, text: str) -> None:
        *sources, target = text.split()
        tree, place = ROOT, self.inside(target)
        if sources[0].startswith("--from="):
            tree = self.stage_root(sources.pop(0).removeprefix("--from="))
        into = target.endswith("/") or len(sources) > 1
        for source in sources:
            found = tree / source.lstrip("/")
            end = place / found.name if into else place
            end.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                # a folder is copied as what is in it, without the caches that .dockerignore keeps back
                ignored = shutil.ignore_patterns("__pycache__") if tree == ROOT else None
                shutil.copytree(found, place, symlinks=True, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(found, end)

    def run(self, text: str) -> None:
        """The shell command with the image's absolute paths below the root."""
        command = re.sub(r"(?<![\w.])/(opt|data|src)\b", lambda m: shlex.quote(str(self.root / m[1])), text)
        shims = self.folder / "shims"
        shims.mkdir(exist_ok=True)
        for name, script in self.shims.items():
            (shims / name).write_text(f"#!/bin/sh\n{script}\n")
            (shims / name).chmod(0o755)
        environ = self.environ | {"PATH": f"{shims}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["/bin/sh", "-ec", command], cwd=self.inside("."), env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"
