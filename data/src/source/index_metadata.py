"""Prints the METADATA of a wheel as the package index gives it, without the wheel: `NAME VERSION`.

Asks with pip's own session, so that index, certificates, proxies and passwords are those of its configuration:
the metadata beside the wheel (PEP 658), else the index's JSON page. Exit status 3: there is neither.
"""

import re
import sys
from pip._internal.commands import create_command


def plain(text):
    return re.sub(r"[-_.]+", "-", text).lower()


def beside_wheel(get, index, name, version):
    page = get(f"{index}/{plain(name)}/", {"Accept": "application/vnd.pypi.simple.v1+json"})
    is_json = page is not None and "json" in page.headers.get("Content-Type", "")
    for file in page.json().get("files", []) if is_json else []:
        parts = file["filename"].split("-")
        # Some mirrors have the metadata and do not announce it.
        if file["filename"].endswith(".whl") and plain(parts[0]) == plain(name) and parts[1] == version:
            metadata = get(file["url"] + ".metadata", {})
            if metadata is not None:
                return metadata.text
    return None


def json_page(get, index, name, version):
    packages = f"{index.removesuffix('/simple')}/pypi/{name}"
    # The page without a version is that of the newest one.
    page = get(f"{packages}/{version}/json", {}) or get(f"{packages}/json", {})
    info = page.json()["info"] if page is not None else {}
    if info.get("version") != version:
        return None
    lines = [f"Name: {info['name']}", f"Version: {info['version']}"]
    for key, field in [("license_expression", "License-Expression"), ("license", "License")]:
        if info.get(key):
            lines.append(f"{field}: " + info[key].strip().replace("\n", "\n        "))
    lines += [f"Classifier: {classifier}" for classifier in info.get("classifiers") or []]
    return "\n".join(lines) + "\n"


def main(name, version):
    command = create_command("download")
    options, _ = command.parse_args(["--quiet", name])
    if options.no_index or options.extra_index_urls:
        # The wheel may come from elsewhere, and another package may have its name here.
        return 3
    with command.main_context():
        session = command.get_default_session(options)

        def get(url, headers):
            answer = session.get(url, headers=headers, timeout=30)
            return answer if answer.status_code == 200 else None

        index = options.index_url.rstrip("/")
        text = beside_wheel(get, index, name, version) or json_page(get, index, name, version)
    if text is None:
        return 3
    sys.stdout.buffer.write(text.encode()[: 1 << 20])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
