"""Mutations: of bytes, lines of text, trees of JSON and YAML, WAV chunks and zip files. All take their chances from one
random generator, so that a seed gives the same mutant again."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

RAN = "code_ran"
"""A file that a mutant which runs code leaves behind."""

INTEGERS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FLOATS = (math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0, -0.0, 1e-40)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1e-9, 0.5, 1e9, 2**31, 2**63, 2**70, 10**400, 1e308, -1e308),
    *(math.nan, math.inf, -math.inf),
    *("", " ", "x", "nan", "1", "null", "Speech", "../..", "/etc/passwd", "a\0b", "a\nb", "ü\ud800", "é" * 300, "|cat"),
    *([], {}, [[]], [None], ["x"], [1, 2, 3], [math.nan], {"x": 1}, {"": []}, {"x": {"x": {}}}),
)


class Evil:
    """Leaves :data:`RAN` behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (RAN, "w"))


# --- bytes ------------------------------------------------------------------------------------------------------------


def place(data: bytes, rng: random.Random) -> int:
    """Where to change something: headers and ends count as much as all the rest."""
    n = max(1, len(data))
    return (
        rng.choice((rng.randrange(min(n, 64)), rng.randrange(min(n, 512)), n - 1 - rng.randrange(min(n, 256)))) % n
        if rng.random() < 0.7
        else rng.randrange(n)
    )


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if out else 0):
        out[place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def put_integer(data: bytes, rng: random.Random) -> bytes:
    width, order = rng.choice((1, 2, 4, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice((*INTEGERS, len(data), len(data) * 2, rng.getrandbits(32), rng.getrandbits(64)))
    at = place(data, rng)
    at -= at % rng.choice((1, width))
    return data[:at] + (value % (1 << 8 * width)).to_bytes(width, order) + data[at + width :]


def put_float(data: bytes, rng: random.Random) -> bytes:
    form = rng.choice(("<f", ">f", "<d", ">d"))
    at = place(data, rng)
    at -= at % rng.choice((1, struct.calcsize(form)))
    value = rng.choice(FLOATS)
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Its beginning: of any length, or almost all, or almost nothing."""
    n = len(data)
    return data[: max(0, rng.choice((rng.randrange(n + 1), n // 2, n - 1 - rng.randrange(20), rng.randrange(64))))]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = place(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 100))) + data[at:]


def delete(data: bytes, rng: random.Random) -> bytes:
    at = place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 100)) :]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    at, n = place(data, rng), rng.choice((4, 16, 500))
    return data[: at + n] + data[at:]


def swap(data: bytes, rng: random.Random) -> bytes:
    n = rng.choice((1, 4, 64))
    a, b = sorted((place(data, rng), place(data, rng)))
    if b < a + n:
        return flip_bits(data, rng)
    return data[:a] + data[b : b + n] + data[a + n : b] + data[a : a + n] + data[b + n :]


def zero(data: bytes, rng: random.Random) -> bytes:
    at, n = place(data, rng), rng.choice((1, 4, 64, 1000))
    return data[:at] + bytes(len(data[at : at + n])) + data[at + n :]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((rng.randbytes(rng.choice((1, 3, 1000))), b"\0", b"\n", data))


def replace_all(data: bytes, rng: random.Random) -> bytes:
    """Another file altogether."""
    return rng.choice(
        (b"", b"\0" * len(data), b"hello", b"PK\5\6" + bytes(18), pickle.dumps(Evil()), b"\xff\xfe", b"{}")
    )


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, flip_bits, put_integer, put_integer, put_float, truncate, truncate, insert, delete, duplicate),
    *(swap, zero, append, replace_all),
)


def mutate_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    change = rng.choice(BYTES)
    return change(data, rng), change.__name__


# --- lines of text ----------------------------------------------------------------------------------------------------

WORDS = (
    *("x", "Speech", "silence", "Cough", "NaN", "inf", "-1", "1e999", "0", "99999999999999999999", "٣", "ü", "a/b"),
    *(
        "../../x",
        "/etc/passwd",
        "/dev/null",
        "/dev/zero",
        ".",
        "-",
        f"touch {RAN} |",
        f"| touch {RAN}",
        "x:99999999999",
    ),
    *("x:-1", "\0", "\x85", "\u2028", "\ufeff", "a" * 5000, "x,y", "#", '"', "%s", "{}", "\t"),
)


def mutate_lines(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Text with another line, word, encoding or line end."""
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    word = rng.choice(WORDS).encode("utf-8", "surrogatepass")
    kind = rng.choice(
        (
            "delete",
            "duplicate",
            "swap",
            "blank",
            "blank",
            "bom",
            "latin",
            "crlf",
            "cut",
            "word",
            "word",
            "word",
            "words",
        )
    )
    if kind == "delete":
        del lines[i]
    elif kind == "duplicate":
        lines.insert(j, lines[i])
    elif kind == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == "blank":
        lines.insert(i, rng.choice((b"", b" ", b"\t", b"\r", b"\x0c")))
    elif kind == "bom":
        lines[i] = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe")) + lines[i]
    elif kind == "latin":
        lines[i] += "é".encode("latin-1")
    elif kind == "crlf":
        return data.replace(b"\n", rng.choice((b"\r\n", b"\r"))), kind
    elif kind == "cut":
        return truncate(data, rng), "truncate"
    else:
        words = lines[i].split(b" ")
        k = rng.randrange(len(words))
        if kind == "words" and len(words) > 1:
            del words[k]
        elif rng.random() < 0.3:
            words.insert(k, word)
        else:
            words[k] = rng.choice((word, words[k] + word, words[k][:-1]))
        lines[i] = b" ".join(words)
    return b"\n".join(lines), kind


# --- trees ------------------------------------------------------------------------------------------------------------


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree of lists and mappings; of long lists the first items."""
    found = [path] if path else []
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree[:50]) if isinstance(tree, list) else ()
    for key, value in items:
        found += _places(value, (*path, key))
    return found


def mutate_tree(tree: Any, rng: random.Random) -> tuple[Any, str]:
    """A tree with a value of another type or size, or a key that is missing, new, or spelt otherwise."""
    tree = copy.deepcopy(tree)
    places = _places(tree)
    if not places or rng.random() < 0.02:
        value = rng.choice(VALUES)
        return value, f"root = {str(value)[:40]!r}"
    # Every key alike, however often it stands in lists.
    keys = sorted({str(path[-1]) for path in places})
    key = rng.choice(keys)
    *above, last = rng.choice([path for path in places if str(path[-1]) == key])
    parent = tree
    for part in above:
        parent = parent[part]
    value = parent[last]
    where = ".".join(map(str, (*above, last)))
    kind = rng.choice(("value", "value", "value", "value", "near", "near", "delete", "rename", "copy", "wrap", "extra"))
    if kind == "value":
        parent[last] = rng.choice(VALUES)
        return tree, f"{where} = {str(parent[last])[:40]!r}"
    if kind == "near":
        parent[last] = _near(value, rng)
        return tree, f"{where} = {str(parent[last])[:40]!r}"
    if kind == "delete":
        del parent[last]
    elif kind == "rename" and isinstance(parent, dict):
        parent[rng.choice((f"{last}s", str(last)[:-1], str(last).upper(), "", 1, None))] = parent.pop(last)
    elif kind == "copy":
        target = rng.choice(places)
        holder = tree
        for part in target[:-1]:
            holder = holder[part]
        holder[target[-1]] = copy.deepcopy(value)
        where = f"{where} to {target}"
    elif kind == "wrap":
        parent[last] = rng.choice(([value], [value, value], {"x": value}, str(value), [[value]]))
    elif isinstance(parent, dict):
        parent[rng.choice(("x", "", "inherit", "name", 1))] = rng.choice(VALUES)
    else:
        parent.append(copy.deepcopy(value))
    return tree, f"{kind} {where}"


def _near(value: Any, rng: random.Random) -> Any:
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((-value, value + 1, value - 1, value * 1e6, value / 1e6, float(value), int(value), value * 2))
    if isinstance(value, str):
        return rng.choice(
            (value + "x", value[:-1], value.upper(), f"/{value}", f"../{value}", f"{value}\n", f" {value}")
        )
    if isinstance(value, list):
        return rng.choice((value * 2, value[:-1], value[::-1], [*value, None], value * 500))
    return value


def mutate_json(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """JSON of another tree; sometimes what is no JSON, or strange JSON."""
    if rng.random() < 0.15:
        return rng.choice((mutate_bytes, mutate_lines))(data, rng)
    if rng.random() < 0.04:
        return rng.choice(
            (b"[" * 100_000, b"[" * 5000 + b"]" * 5000, data[:1] + b'"x":1,"x":2,' + data[1:], b"1" * 5000)
        ), "odd"
    tree, what = mutate_tree(json.loads(data), rng)
    try:
        return json.dumps(tree, indent=rng.choice((None, 1))).encode(), what
    except TypeError:  # keys of several types
        return data[:-1], "truncate"


ODD_YAML = (
    b"\nx: !!python/object/apply:os.system ['touch " + RAN.encode() + b"']\n",
    b"\nx: &x [*x]\n",
    b"\nx: &x {y: *x}\n",
    b"\n? [a]\n: 1\n",
    b"\n? {a: b}\n: 1\n",
    b"\nx: 2001-02-30\n",
    b"\nx: 2001-02-03\n",
    b"\nx: 0x" + b"f" * 5000 + b"\n",
    b"\nx: " + b"9" * 5000 + b"\n",
    b"\nx: 1_000:99\n",
    b"\n<<: 3\n",
    b"\nx: *nothing\n",
    b"\n---\nx: 1\n",
    b"\nx: !!binary zzz\n",
    b"\nx: !!timestamp x\n",
    b"\nx: !!int x\n",
    b"\nx: !!float x\n",
    b"\nx: !!set {a, b}\n",
    b"\nx: !!omap [a]\n",
    b"\n!!map x: 1\n",
    b"\x00",
    b"\n" + b"[" * 3000,
    b"\n"
    + b"".join(b"x%d: &x%d [%s]\n" % (i, i, b",".join([b"*x%d" % (i - 1)] * 9) if i else b"1") for i in range(12)),
)


def mutate_yaml(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """YAML of another tree; sometimes what is no YAML, or strange YAML."""
    if rng.random() < 0.15:
        return rng.choice((mutate_bytes, mutate_lines))(data, rng)
    if rng.random() < 0.1:
        odd = rng.choice(ODD_YAML)
        return (odd + data if rng.random() < 0.3 else data + odd), f"odd {odd[:30]!r}"
    tree, what = mutate_tree(yaml.safe_load(data), rng)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=False).encode(), what


# --- WAV --------------------------------------------------------------------------------------------------------------


def mutate_wav(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A RIFF file with other sizes, or its chunks in another order, twice or not at all."""
    if data[:4] != b"RIFF" or rng.random() < 0.5:
        return mutate_bytes(data, rng)
    chunks, at = [], 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append([data[at : at + 4], size, data[at + 8 : at + 8 + size + size % 2]])
        at += 8 + size + size % 2
    size = int.from_bytes(data[4:8], "little")
    i, j = rng.randrange(len(chunks)), rng.randrange(len(chunks))
    kind = rng.choice(("size", "size", "size", "riff", "swap", "double", "drop", "fmt", "fmt", "insert", "name"))
    sizes = (0, 1, 2, 4, 8, size, size // 2, size * 2, size + 1, *INTEGERS)
    if kind == "size":
        chunks[i][1] = rng.choice((*sizes, chunks[i][1] // 4, chunks[i][1] + 2, chunks[i][1] - 2)) % 2**32
    elif kind == "riff":
        size = rng.choice(sizes) % 2**32
    elif kind == "swap":
        chunks[i], chunks[j] = chunks[j], chunks[i]
    elif kind == "double":
        chunks.insert(j, chunks[i])
    elif kind == "drop":
        del chunks[i]
    elif kind == "fmt":
        fmt = next(chunk for chunk in chunks if chunk[0] == b"fmt ")
        form, at = rng.choice((("<H", 0), ("<H", 2), ("<I", 4), ("<I", 8), ("<H", 12), ("<H", 14)))
        value = struct.pack(
            form, rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 24, 32, 64, 255, 8000, 65535, rng.getrandbits(16)))
        )
        fmt[2] = fmt[2][:at] + value + fmt[2][at + len(value) :]
    elif kind == "insert":
        chunks.insert(i, [rng.choice((b"LIST", b"JUNK", b"PEAK", b"fact", b"ds64")), 12, rng.randbytes(12)])
    else:
        chunks[i][0] = rng.choice((b"DATA", b"data", b"fmt ", b"\0\0\0\0", b"cue "))
    body = b"".join(name + struct.pack("<I", n) + content for name, n, content in chunks)
    return data[:4] + struct.pack("<I", size) + data[8:12] + body, f"chunk {kind}"


# --- zip --------------------------------------------------------------------------------------------------------------

NAMES = (
    "",
    "x",
    "../x",
    "/x",
    "a\\b",
    "archive.yaml",
    "models/../x",
    "ü.wav",
    "con",
    "a" * 300,
    "x/",
    "labels.txt/x",
    "\n",
)


def read_zip(data: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def write_zip(members: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return out.getvalue()


def mutate_zip_fields(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Another number or name in a record of a zip file: the directory's, a file's own, or the end's."""
    out = bytearray(data)
    record = rng.choice((b"PK\1\2", b"PK\1\2", b"PK\5\6", b"PK\3\4"))
    found = (
        [at for at in range(len(data)) if data.startswith(record, at)]
        if len(data) < 1 << 16
        else _records(data, record)
    )
    if not found:
        return mutate_bytes(data, rng)
    at = rng.choice(found)
    fields = {
        b"PK\1\2": (
            (6, 2),
            (8, 2),
            (10, 2),
            (16, 4),
            (20, 4),
            (24, 4),
            (28, 2),
            (30, 2),
            (32, 2),
            (34, 2),
            (38, 4),
            (42, 4),
        ),
        b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
        b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    }[record]
    if record != b"PK\5\6" and rng.random() < 0.3:  # the name
        start = at + (46 if record == b"PK\1\2" else 30)
        n = int.from_bytes(data[at + (28 if record == b"PK\1\2" else 26) :][:2], "little")
        if n:
            out[start + rng.randrange(n)] = rng.choice((0, 0xFF, 0xC3, ord("/"), ord("."), ord("a")))
            if rng.random() < 0.5:
                out[at + (8 if record == b"PK\1\2" else 6) + 1] |= 0x08  # it is UTF-8
        return bytes(out), f"zip name {record!r}"
    offset, width = rng.choice(fields)
    old = int.from_bytes(out[at + offset : at + offset + width], "little")
    value = rng.choice((*INTEGERS, old + 1, old - 1, old * 2, 8, 9, 12, 14, 93, 99, 0x800, 0x801, len(data)))
    out[at + offset : at + offset + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out), f"zip field {record!r} {offset}: {old} to {value}"


def _records(data: bytes, record: bytes) -> list[int]:
    found, at = [], data.find(record)
    while at >= 0:
        found.append(at)
        at = data.find(record, at + 1)
    return found


def mutate_zip(
    data: bytes, rng: random.Random, of_member: Callable[[str, bytes, random.Random], tuple[bytes, str]]
) -> tuple[bytes, str]:
    """A zip file with other bytes, other records, or another member (which ``of_member`` mutates by its name)."""
    kind = rng.choice(("bytes", "fields", "fields", "member", "member", "member", "members"))
    if kind == "bytes":
        return mutate_bytes(data, rng)
    if kind == "fields":
        return mutate_zip_fields(data, rng)
    members = read_zip(data)
    i = rng.randrange(len(members))
    info, content = members[i]
    if kind == "member":
        changed, what = of_member(info.filename, content, rng)
        members[i] = (info, changed)
        return write_zip(members), f"{info.filename}: {what}"
    kind = rng.choice(("drop", "double", "rename", "link", "compress", "add", "move", "only"))
    if kind == "drop":
        del members[i]
    elif kind == "double":
        members.append(members[i])
    elif kind == "rename":
        parent, _, name = info.filename.rpartition("/")
        new = rng.choice((*NAMES, f"{parent}/{rng.choice(NAMES)}", f"{parent}/{name}.wav", f"{parent}/{name.upper()}"))
        members[i] = (_named(info, new), content)
    elif kind == "move":
        members[i] = (_named(info, rng.choice(("", "x/", "../")) + info.filename.partition("/")[2]), content)
    elif kind == "link":
        info.external_attr = 0o120777 << 16
    elif kind == "compress":
        info.compress_type = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif kind == "add":
        members.insert(i, (zipfile.ZipInfo(rng.choice(NAMES)), rng.randbytes(20)))
    else:
        members = [members[i]]
    with warnings.catch_warnings():  # of names that stand twice
        warnings.simplefilter("ignore")
        return write_zip(members), f"zip {kind} {info.filename}"


def _named(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    new = zipfile.ZipInfo(name)
    new.external_attr, new.compress_type = info.external_attr, info.compress_type
    return new
