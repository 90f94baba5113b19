"""Prints how many tokens of MODEL the text on stdin has."""
import pathlib
import sys

from tokenizers import Tokenizer

print(len(Tokenizer.from_file(str(pathlib.Path(sys.argv[1], "tokenizer.json"))).encode(sys.stdin.read()).ids))
