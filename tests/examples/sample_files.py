"""Real files of many kinds: written by the standard library, put together here, or part of Python itself."""

import argparse
import csv
import gzip
import io
import json
import py_compile
import sqlite3
import struct
import sys
import tarfile
import wave
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(str(argparse.__file__))


def python_source(folder: Path) -> bytes:
    return SOURCE.read_bytes()


def python_bytecode(folder: Path) -> bytes:
    return Path(py_compile.compile(str(SOURCE), cfile=str(folder / "argparse.pyc"), doraise=True)).read_bytes()


def elf(folder: Path) -> bytes:
    with Path(sys.executable).resolve().open("rb") as program:
        return program.read(1 << 20)


def json_text(folder: Path) -> bytes:
    tree = {"name": "parser", "version": 3, "options": [{"flag": f"--option-{n}", "default": None} for n in range(20)]}
    return json.dumps(tree, indent=2).encode()


def png(folder: Path) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(64)) for y in range(64))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def zip_archive(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes/first.txt", "the first note\n" * 100)
        archive.writestr("notes/second.txt", "the second note\n" * 100)
    return out.getvalue()


def gzip_file(folder: Path) -> bytes:
    return gzip.compress(python_source(folder))


def tar_archive(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(SOURCE, "argparse.py")
    return out.getvalue()


def html(folder: Path) -> bytes:
    items = "\n".join(f'    <li class="page"><a href="/page/{n}">Page {n}</a></li>' for n in range(12))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n  <meta charset="utf-8">\n  <title>Pages</title>\n'
        '  <link rel="stylesheet" href="/site.css">\n  <style>\n    body { margin: 2em; }\n  </style>\n'
        "</head>\n<body>\n"
        f"  <h1>Pages</h1>\n  <p>All that there is to <em>read</em>.</p>\n  <ul>\n{items}\n  </ul>\n"
        '  <img src="/end.png" alt="the end">\n  <script src="/site.js"></script>\n</body>\n</html>\n'
    ).encode()


def xml(folder: Path) -> bytes:
    root = ET.Element("catalog", {"version": "1.0"})
    for number in range(30):
        book = ET.SubElement(root, "book", {"id": f"bk{number}"})
        ET.SubElement(book, "title").text = f"Volume {number}"
        ET.SubElement(book, "price").text = f"{number}.95"
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def csv_table(folder: Path) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "name", "city", "amount", "date"])
    writer.writerows([n, f"Customer {n}", "Utrecht", f"{n * 3.5:.2f}", f"2024-01-{n % 28 + 1:02}"] for n in range(60))
    return out.getvalue().encode()


def wav(folder: Path) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"".join(struct.pack("<h", (n * 37) % 20000 - 10000) for n in range(8000)))
    return out.getvalue()


def pdf(folder: Path) -> bytes:
    content = b"BT /F1 24 Tf 72 720 Td (A page of text) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table) + trailer


def sqlite_database(folder: Path) -> bytes:
    path = folder / "data.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("create table places (id integer primary key, name text)")
    connection.executemany("insert into places (name) values (?)", [(f"place {n}",) for n in range(100)])
    connection.commit()
    connection.close()
    return path.read_bytes()


def markdown(folder: Path) -> bytes:
    parts = ["# Field notes\n\nWhat we saw, **day by day**.\n"]
    parts += [f"## Day {n}\n\n- a [map](map{n}.png)\n- `{n}` birds\n\n```sh\nls day{n}\n```\n" for n in range(1, 12)]
    return "\n".join(parts).encode()


# label of the model -> what makes such a file (given a folder for what cannot be made in memory), and its MIME type
SAMPLES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "python": (python_source, "text/x-python"),
    "pythonbytecode": (python_bytecode, "application/x-bytecode.python"),
    "elf": (elf, "application/x-executable-elf"),
    "json": (json_text, "application/json"),
    "png": (png, "image/png"),
    "zip": (zip_archive, "application/zip"),
    "gzip": (gzip_file, "application/gzip"),
    "tar": (tar_archive, "application/x-tar"),
    "html": (html, "text/html"),
    "xml": (xml, "text/xml"),
    "csv": (csv_table, "text/csv"),
    "wav": (wav, "audio/x-wav"),
    "pdf": (pdf, "application/pdf"),
    "sqlite": (sqlite_database, "application/octet-stream"),
    "markdown": (markdown, "text/markdown"),
}
