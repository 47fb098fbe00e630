"""The Dockerfile without an engine: every COPY and RUN of it is executed in a clean tree, and what it starts runs from there alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.stack.dockerfile import DOCKERFILE, Builder, Instruction, read_dockerfile

STAGES = read_dockerfile(DOCKERFILE.read_text(encoding="utf-8"))


def test_it_is_read_as_it_stands():
    assert [stage.name for stage in STAGES] == [
        "source",
        "service-build",
        "trainer-build",
        "base",
        "trainer",
        "service",
    ]
    lines = re.findall(r"^(RUN|COPY) ", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == sum(step.word in ("RUN", "COPY") for stage in STAGES for step in stage.steps) == 11
    with pytest.raises(AssertionError, match="ADD is new"):
        read_dockerfile("FROM x AS y\nADD a b\n")
    joined = read_dockerfile("# a comment\nFROM x AS y\nRUN a \\\n    && b\n")[0].steps
    assert joined == [Instruction("RUN", "a && b")]


@pytest.mark.slow
def test_every_copy_and_run_does_what_it_says_and_what_is_started_runs(tmp_path):
    """With the installer kept off the network: the dependencies are those of this environment, which pip finds to be what is asked
    for. useradd is told to write below the folder; where we are not root, or there is no useradd, that line is left out, aloud."""
    ours = sysconfig.get_path("purelib")
    # A venv sees our packages too, by a line that venvs read, and our setuptools in place of the old one that Python 3.11 brings.
    old = '"$s"/setuptools* "$s"/_distutils_hack "$s"/distutils-precedence.pth'
    seen = f'{sys.executable} "$@" && for s in "$3"/lib/python*/site-packages; do echo {ours} > "$s/ours.pth"; rm -rf {old}; done'
    as_root = os.getuid() == 0 and shutil.which("useradd") is not None
    users = f'exec {shutil.which("useradd")} --prefix {tmp_path}/image "$@"' if as_root else "exit 0"
    owned = "" if as_root else 'while [ "$1" != -d ]; do shift; done; shift 5; exec mkdir -p "$@"'
    environ = {
        "HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    shims = {"python": seen, "useradd": users} | ({"install": owned} if owned else {})
    builder, known = Builder(tmp_path, environ, shims), set()
    for stage in STAGES:
        if stage.name == "base":
            etc = builder.stage_root("base") / "etc"
            etc.mkdir(parents=True)
            for name in ("passwd", "group", "shadow", "gshadow"):
                (etc / name).write_text("")
        builder.build(stage, known)
        known.add(stage.name)
    steps = [step for stage in STAGES for step in stage.steps if step.word in ("COPY", "RUN", "WORKDIR")]
    assert builder.done == steps

    if as_root:
        assert "longweave:x:10001:" in (builder.stage_root("base") / "etc" / "passwd").read_text()
        about = (builder.stage_root("base") / "data").stat()
        assert (about.st_uid, about.st_gid) == (10001, 10001)
    for stage in STAGES[-2:]:
        builder.enter(stage)
        started = json.loads(next(step.text for step in stage.steps if step.word == "ENTRYPOINT"))
        path = f"{tmp_path}/image/opt/longweave/bin"
        clean = {"PATH": f"{path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        told = subprocess.run(
            [*started, "--help"], env=clean, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        assert "usage" in told.stdout
        where = "import packing, service, synth, training; print(*(m.__path__[0] for m in (packing, service, synth, training)))"
        found = subprocess.run(
            [f"{path}/python", "-c", where], env=clean, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert all(place.startswith(f"{tmp_path}/image/opt/longweave/") for place in found.stdout.split()), found.stdout
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"kind": "synl", "samples": 1, "length": [2048]}))
    build = [f"{path}/longweave", "build", str(spec), "--out", str(tmp_path / "dataset"), "--json"]
    subprocess.run(build, env=clean, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "dataset" / "manifest.json").exists()
