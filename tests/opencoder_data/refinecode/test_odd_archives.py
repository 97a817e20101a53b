"""Archives with odd members: each costs itself, the rest is read, what is not read has a row."""

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import pytest
import zstandard

from .test_odd_tables import ingest

PYTHON = sys.executable


def member(name, data=b"", kind=tarfile.REGTYPE, **fields):
    """A member in ustar, with GNU long names where they are needed."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def code(name):
    return f"print('{name}')\n".encode()


def tar(*names):
    return b"".join(member(n, code(n)) for n in names) + bytes(1024)


def pax(records, kind=tarfile.XHDTYPE):
    """A pax header with these bytes as its records."""
    return member("pax", records, kind)


def record(key, value):
    body = f" {key}={value}\n".encode()
    size = len(body) + 1
    while len(str(size)) + len(body) != size:
        size += 1
    return str(size).encode() + body


def read(tmp_path, name, data, *overrides):
    """({path: content} of what is kept, {path: rule} of what is not)."""
    (tmp_path / name).write_bytes(data)
    documents, ledger, _ = ingest(tmp_path / name, tmp_path / f"out-{name}", *overrides)
    return {d["path"]: d["content"] for d in documents}, {r["path"]: r["rule"] for r in ledger if r["rule"]}


def kept(*names):
    return {n: code(n).decode() for n in names}


CONCATENATED = {
    "a.tar": tar("a.py", "b.py") + tar("c.py"),
    "padded.tar": tar("a.py", "b.py") + bytes(10_240) + tar("c.py") + bytes(5_120),
    "a.tar.gz": gzip.compress(tar("a.py", "b.py")) + gzip.compress(tar("c.py")),
    "one.tar.gz": gzip.compress(tar("a.py", "b.py")[:700]) + gzip.compress(tar("a.py", "b.py")[700:] + tar("c.py")),
    "a.tar.bz2": bz2.compress(tar("a.py")) + bz2.compress(tar("b.py", "c.py")),
    "a.tar.xz": lzma.compress(tar("a.py")) + bytes(8) + lzma.compress(tar("b.py", "c.py")),
    "a.tar.zst": zstandard.compress(tar("a.py")) + zstandard.compress(tar("b.py", "c.py")),
    "wrong.tar": gzip.compress(tar("a.py", "b.py", "c.py")),  # packed, whatever its name says
    "no-end.tar": tar("a.py", "b.py", "c.py")[:-1024],
}


@pytest.mark.parametrize("name", CONCATENATED)
def test_concatenated_archives_are_read_to_the_end(name, tmp_path):
    assert read(tmp_path, name, CONCATENATED[name]) == (kept("a.py", "b.py", "c.py"), {})


@pytest.mark.parametrize("rest", [b"garbage" * 100, b"x", os.urandom(2000)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_follows_an_archive_and_is_none_has_a_row(rest, pack, tmp_path):
    name = "a.tar" if pack is bytes else "a.tar.gz"
    found, rejected = read(tmp_path, name, pack(tar("a.py")) + rest)
    assert found == kept("a.py") and rejected == {"": "unreadable_archive"}


def test_a_corrupt_header_has_a_row_and_what_came_before_stays(tmp_path):
    data = bytearray(tar("a.py", "b.py", "c.py"))
    data[1024 + 100] ^= 0xFF
    assert read(tmp_path, "a.tar", bytes(data)) == (kept("a.py"), {"": "unreadable_archive"})


def test_hard_links_are_files_and_lead_nowhere_outside(tmp_path):
    (tmp_path / "secret.py").write_text("secret = 1\n")
    outside = str(tmp_path / "secret.py")
    links = [
        member("before.py", kind=tarfile.LNKTYPE, linkname="a.py"),
        member("a.py", code("a.py")),
        member("one.py", kind=tarfile.LNKTYPE, linkname="a.py"),
        member("two.py", kind=tarfile.LNKTYPE, linkname="a.py"),
        member("out.py", kind=tarfile.LNKTYPE, linkname=outside),
        member("up.py", kind=tarfile.LNKTYPE, linkname="../secret.py"),
        member("chain.py", kind=tarfile.LNKTYPE, linkname="missing"),
        member("soft.py", kind=tarfile.SYMTYPE, linkname=outside),
        member("/abs.py", code("abs")),
        member("../../up2.py", code("up2")),
    ]
    found, rejected = read(tmp_path, "a.tar.gz", gzip.compress(b"".join(links) + bytes(1024)))
    text = code("a.py").decode()
    assert {n: found[n] for n in ("before.py", "a.py", "one.py", "two.py")} == dict.fromkeys(
        ("before.py", "a.py", "one.py", "two.py"), text
    )
    assert len(found) == 6 and not any("secret" in t for t in found.values())
    assert rejected == {"out.py": "not_a_file", "up.py": "not_a_file", "chain.py": "not_a_file", "soft.py": "symlink"}


def test_hard_links_of_a_cut_archive_have_rows(tmp_path):
    data = member("a.py", code("a.py")) + member("l.py", kind=tarfile.LNKTYPE, linkname="a.py")
    data += member("m.py", kind=tarfile.LNKTYPE, linkname="z.py") + member("big.py", b"#" * 2000)[:1500]
    found, rejected = read(tmp_path, "a.tar", data)
    assert set(found) == {"a.py", "l.py"} and rejected == {"m.py": "not_a_file", "": "unreadable_archive"}


def test_members_that_are_not_files(tmp_path):
    kinds = {"fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "link": tarfile.SYMTYPE}
    data = b"".join(member(f"{n}.py", kind=k) for n, k in kinds.items())
    data += (
        member("label", kind=b"V") + member("rest.py", b"y" * 700, kind=b"M") + member("odd.py", b"z" * 700, kind=b"Q")
    )
    data += member("dir.py", kind=tarfile.DIRTYPE) + member("old.py/", kind=tarfile.AREGTYPE)
    found, rejected = read(tmp_path, "a.tar", data + tar("a.py"))
    assert found == kept("a.py") and rejected.pop("link.py") == "symlink"
    assert set(rejected) == {"fifo.py", "char.py", "block.py", "label", "rest.py", "odd.py"}
    assert set(rejected.values()) == {"not_a_file"}


def test_names_in_every_form(tmp_path):
    long = "d/" * 200 + "long.py"
    names = ["größe.py", "a\udcff.py", long, "x" * 120 + ".py"]
    data = b"".join(member(n, code("x") + n.encode("utf-8", "replace")) for n in names)
    data += pax(record("path", "pax/名.py")) + member("short", b"p = 1\n")
    data += pax(record("path", "global.py"), tarfile.XGLTYPE) + member("short", b"g = 1\n")
    found, rejected = read(tmp_path, "a.tar", data + bytes(1024))
    assert set(found) == {"größe.py", "a\\xff.py", long, "x" * 120 + ".py", "pax/名.py", "global.py"} and not rejected


@pytest.mark.parametrize(
    "records",
    [b"nonsense", b"99999 path=x\n", b"5 a=\n", b"-3 path=x\n", b"12 path=x.py", b"\xff" * 50, record("mtime", "soon")],
)
def test_corrupt_pax_records_cost_no_member(records, tmp_path):
    found, rejected = read(tmp_path, "a.tar", pax(records) + tar("a.py", "b.py"))
    assert found == kept("a.py", "b.py") and not rejected


@pytest.mark.parametrize("size", ["-1", "many", "9" * 30, "1e3", "4611686018427387904"])
def test_a_pax_size_that_lies(size, tmp_path):
    found, rejected = read(tmp_path, "a.tar", tar("a.py")[:-1024] + pax(record("size", size)) + tar("b.py", "c.py"))
    assert found == kept("a.py") and rejected.pop("") == "unreadable_archive" and set(rejected) <= {"b.py"}


def test_a_header_with_a_negative_size_ends_the_archive(tmp_path):
    block = bytearray(member("b.py"))
    block[124:136] = b"\xff" * 11 + b"\x00"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    found, rejected = read(tmp_path, "a.tar", tar("a.py")[:-1024] + bytes(block) + tar("c.py"))
    assert found == kept("a.py") and rejected == {"": "unreadable_archive"}


@pytest.mark.parametrize("form", ["old", "0.1", "1.0"])
@pytest.mark.parametrize("holes", [True, False])
def test_sparse_members(form, holes, tmp_path):
    data = code("s.py").ljust(512, b"#")
    real = 4096 if holes else 512
    if form == "old":
        info = bytearray(member("s.py", data, tarfile.GNUTYPE_SPARSE))
        info[386:410] = b"%011o\0%011o\0" % (0, 512)
        info[483:495] = b"%011o\0" % real
        info[148:156] = b" " * 8
        info[148:156] = b"%06o\0 " % sum(info[:512])
        made = bytes(info)
    elif form == "0.1":
        records = {"GNU.sparse.size": str(real), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,512"}
        made = pax(b"".join(record(k, v) for k, v in records.items())) + member("s.py", data)
    else:
        records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.py",
                   "GNU.sparse.realsize": str(real)}  # fmt: skip
        made = pax(b"".join(record(k, v) for k, v in records.items()))
        made += member("GNUSparseFile.0/s.py", b"1\n0\n512\n".ljust(512, b"\0") + data)
    found, rejected = read(tmp_path, "a.tar", made + tar("b.py"))
    assert found.pop("b.py") and (rejected if holes else found) == {"s.py": "binary" if holes else data.decode()}


def zipped(*entries, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", options.get("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name in entries:
            archive.writestr(name, code(name))
    return buffer.getvalue()


@pytest.mark.parametrize("flag", [8, 0])
def test_a_name_in_a_zip_that_is_not_text(flag, tmp_path):
    raw = bytearray(zipped("a.py", "q1.py", "c.py").replace(b"q1.py", b"\xff\xfe.py"))
    for signature, at, name in ((b"PK\3\4", 7, 30), (b"PK\1\2", 9, 46)):
        position = raw.find(signature)
        while position >= 0:
            if raw[position + name : position + name + 2] == b"\xff\xfe":
                raw[position + at] |= flag
            position = raw.find(signature, position + 4)
    found, rejected = read(tmp_path, "a.zip", bytes(raw))
    other = "\\xff\\xfe.py" if flag else b"\xff\xfe.py".decode("cp437")
    assert found == {**kept("a.py", "c.py"), other: "print('q1.py')\n"} and not rejected


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_of_zip(compression, tmp_path):
    assert read(tmp_path, "a.zip", zipped("a.py", "größe.py", compression=compression))[0] == kept("a.py", "größe.py")


def test_odd_members_of_a_zip(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.py", "locked.py", "/abs.py", "../up.py", "sum.py", "dir/"):
            archive.writestr(name, code(name) if name != "dir/" else b"")
        link = zipfile.ZipInfo("link.py")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        with archive.open(zipfile.ZipInfo("wide.py"), "w", force_zip64=True) as out:
            out.write(code("wide.py"))
        archive.writestr("last.py", code("last.py"))
    raw = bytearray(buffer.getvalue())
    directory = raw.index(b"PK\1\2")
    locked, wrong = raw.index(b"locked.py", directory) - 46, raw.index(b"sum.py", directory) - 46
    raw[locked + 8] |= 1
    raw[wrong + 16] ^= 0xFF
    found, rejected = read(tmp_path, "a.zip", bytes(raw))
    assert found == kept("a.py", "/abs.py", "../up.py", "wide.py", "last.py")
    assert rejected == {"locked.py": "unreadable_member", "sum.py": "unreadable_member", "link.py": "symlink"}


def test_zip64_end_record(tmp_path):
    raw = zipped("a.py", "b.py")
    end = raw.index(b"PK\5\6")
    _, _, _, _, count, size, offset, _ = struct.unpack("<4s4H2LH", raw[end:])
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert read(tmp_path, "a.zip", raw[:end] + wide + locator + last) == (kept("a.py", "b.py"), {})


def test_zips_one_after_another_and_data_before(tmp_path):
    found, rejected = read(tmp_path, "a.zip", zipped("a.py") + zipped("b.py"))
    assert found == kept("b.py") and rejected == {"": "unreadable_archive"}
    assert read(tmp_path, "b.zip", b"#!/bin/sh\n" + zipped("b.py")) == (kept("b.py"), {})


def overlapping(count=50, size=100_000):
    """Entries that share one member's data, as in the published bombs."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = b"x = 1\n" * (size // 6)
    packed = packer.compress(text) + packer.flush()
    fields = (20, 0, 8, 0, 33, zlib.crc32(text), len(packed), len(text), 1, 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + b"a" + packed
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0) + b"a"
    directory = entry * count
    return local + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(local), 0)


def test_overlapping_entries_of_a_zip_are_rejected_one_by_one(tmp_path):
    (tmp_path / "a.zip").write_bytes(overlapping())
    documents, ledger, _ = ingest(tmp_path / "a.zip", tmp_path / "out")
    assert not documents and [r["rule"] for r in ledger] == ["unreadable_member"] * 50
    assert all("overlaps" in r["detail"] for r in ledger)


def test_archives_of_other_formats_are_rejected_by_name(tmp_path, capsys):
    from opencoder_data.refinecode.__main__ import main

    root = tmp_path / "in"
    root.mkdir()
    for name in ("a.7z", "b.RAR", "good.py"):
        (root / name).write_bytes(b"7z\xbc\xaf x = 1\n" if name != "good.py" else b"x = 1\n")
    _, ledger, _ = ingest(root, tmp_path / "out")
    assert {r["path"]: r["rule"] for r in ledger} == {
        "a.7z": "unsupported_archive", "b.RAR": "unsupported_archive", "good.py": None,
    }  # fmt: skip
    assert main([f"--input={root / 'a.7z'}", f"--output={tmp_path / 'single'}", "--engine.progress=false"]) == 2
    assert "unpack it" in capsys.readouterr().err


# Bounds. Each bomb is small; the child's address space is bounded, so that what is not rejected ends it.


def gz_tar(*pieces):
    """Pieces of bytes, or numbers of NUL bytes, as a tar.gz without holding them."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as out:
        for piece in pieces:
            if isinstance(piece, int):
                for _ in range(piece >> 20):
                    out.write(bytes(1 << 20))
            else:
                out.write(piece)
    return buffer.getvalue()


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


_BIG = 1 << 29
BOMBS = {
    "longname": lambda: gz_tar(tar("a.py")[:-1024], header("././@LongLink", _BIG, b"L"), _BIG, tar("z.py")),
    "longlink": lambda: gz_tar(tar("a.py")[:-1024], header("././@LongLink", _BIG, b"K"), _BIG, tar("z.py")),
    "pax": lambda: gz_tar(tar("a.py")[:-1024], header("pax", _BIG, b"x"), _BIG, tar("z.py")),
    "global": lambda: gz_tar(tar("a.py")[:-1024], header("pax", _BIG, b"g"), _BIG, tar("z.py")),
    "member": lambda: gz_tar(tar("a.py")[:-1024], header("big.py", _BIG), _BIG, tar("z.py")),
}


def bounded(source, output, *overrides, memory=1_200_000_000):
    """Exit code and standard error of `refinecode` in a child whose address space is bounded."""
    import resource

    command = [PYTHON, "-m", "opencoder_data.refinecode", f"--input={source}", f"--output={output}",
               "--engine.workers=1", "--engine.progress=false", "--stages=ingest,preprocess", *overrides]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )  # fmt: skip
    return done.returncode, done.stderr


def test_headers_and_members_of_half_a_gigabyte_cost_one_row_each(tmp_path):
    from opencoder_data.refinecode.ledger import read_ledger

    (tmp_path / "in").mkdir()
    for name, make in BOMBS.items():
        (tmp_path / "in" / f"{name}.tar.gz").write_bytes(make())
    code_, errors = bounded(tmp_path / "in", tmp_path / "out")
    assert code_ == 0, errors
    rows = read_ledger(str(tmp_path / "out")).to_pylist()
    for name in BOMBS:
        fates = [(r["path"], r["rule"]) for r in rows if r["source"] == f"in/{name}.tar.gz"]
        assert fates[0] == ("a.py", None) and fates[2:] == [("z.py", None)] and fates[1][1] == "size_limit"


def test_archive_bounds(tmp_path):
    data = tar(*(f"{i}.py" for i in range(20)))
    found, rejected = read(tmp_path, "a.tar", data, "ingest.max_archive_entries=5")
    assert set(found) == {f"{i}.py" for i in range(5)} and rejected == {"": "archive_limit"}
    found, rejected = read(tmp_path, "b.tar", data, "ingest.max_archive_bytes=4000")
    assert 0 < len(found) < 5 and rejected == {"": "archive_limit"}
    found, rejected = read(tmp_path, "c.zip", zipped("a.py", "b.py", "c.py"), "ingest.max_archive_bytes=20")
    assert set(found) == {"a.py"} and rejected == {"": "archive_limit"}
    found, rejected = read(tmp_path, "d.zip", zipped("a.py", "b.py", "c.py"), "ingest.max_archive_entries=2")
    assert not found and rejected == {"": "archive_limit"}
    found, rejected = read(tmp_path, "e.tar", data, "ingest.max_archive_s=1e-9")
    assert not found and rejected == {"": "archive_limit"}
    packed = zstandard.compress(tar("a.py")[:-1024] + header("b.py", 300 << 20) + bytes(300 << 20) + tar("c.py"))
    found, rejected = read(tmp_path, "f.tar.zst", packed)
    assert set(found) == {"a.py"} and rejected == {"": "archive_limit"}


def test_an_archive_in_an_archive_is_a_file_that_is_not_opened(tmp_path):
    inner = zipped("deep.py")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.zip", inner)
        archive.writestr("a.py", code("a.py"))
    found, rejected = read(tmp_path, "a.zip", buffer.getvalue())
    assert found == kept("a.py") and rejected == {"inner.zip": "unknown_language"}
