#!/usr/bin/env python3
"""Reads the model card of an export with huggingface_hub and validates its bill of materials against CycloneDX 1.6.

  python check_card.py runs/quickstart/adapter [runs/quickstart/merged ...]

Needs `huggingface_hub` and `cyclonedx-python-lib[json-validation]`, which carries the published schema. Every file
that the bill lists for the export is hashed. Exit status: 0 all hold, 1 not, 2 wrong usage.
"""

import hashlib
import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard


def check_card(folder):
    card = ModelCard.load(folder / "README.md")
    data = card.data
    faults = []
    if data.library_name not in ("peft", "transformers"):
        faults.append(f"library_name is {data.library_name!r}")
    if not data.license:
        faults.append("there is no license")
    if data.license == "other" and not data.license_name:
        faults.append("license is `other`, and there is no license_name")
    # What is read and written again must stay what it was.
    again = ModelCard(str(card))
    if again.data.to_dict() != data.to_dict():
        faults.append("the front matter changes when it is written again")
    results = {result.metric_name: result.metric_value for result in data.eval_results or []}
    print(f"{folder}: card: license {data.license}, base {data.base_model}, metrics {results}")
    return faults


def check_bom(folder):
    text = (folder / "bom.json").read_text()
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    faults = [f"bom.json: {fault}"] if fault else []
    bom = json.loads(text)
    for file in bom["metadata"]["component"]["components"]:
        found = hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest()
        if found != file["hashes"][0]["content"]:
            faults.append(f"bom.json: sha256 of `{file['name']}` is {found}")
    refs = {bom["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in bom["components"])}
    for edge in bom["dependencies"]:
        faults += [f"bom.json: `{ref}` is no component" for ref in {edge["ref"], *edge["dependsOn"]} - refs]
    licences = {one["name"]: one.get("licenses") for one in bom["components"]}
    print(f"{folder}: bill of materials: {len(licences)} components, licences {json.dumps(licences)}")
    return faults


def main(folders):
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    faults = [f"{folder}: {fault}" for folder in folders for fault in check_card(folder) + check_bom(folder)]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main([pathlib.Path(name) for name in sys.argv[1:]]))
