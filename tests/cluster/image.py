#!/usr/bin/env python3
"""Builds a container image's tar archive from files and root file systems, without registry or daemon."""

import argparse
import hashlib
import io
import json
import os
import tarfile


def layer_of_files(files):
    """A layer with these files: `path=/path/in/image`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            source, _, target = file.partition("=")
            tar.add(source, arcname=target.lstrip("/"), filter=owned_by_root)
    return buffer.getvalue()


def owned_by_root(info):
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive")
    parser.add_argument("name")
    parser.add_argument("--layer", action="append", default=[], help="a tar file that becomes a layer as it is")
    parser.add_argument("--file", action="append", default=[], help="path=/path/in/image; folders are taken whole")
    parser.add_argument("--entrypoint", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--user", default="")
    parser.add_argument("--workdir", default="/")
    options = parser.parse_args()

    layers = list(options.layer)
    own = options.archive + ".layer"
    if options.file:
        with open(own, "wb") as file:
            file.write(layer_of_files(options.file))
        layers.append(own)
    names = ["sha256:" + digest_of(layer) for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": options.entrypoint,
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *options.env],
            "User": options.user,
            "WorkingDir": options.workdir,
        },
        "rootfs": {"type": "layers", "diff_ids": names},
    }
    config = json.dumps(config).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    files = [f"{name.removeprefix('sha256:')}.tar" for name in names]
    manifest = [{"Config": config_name, "RepoTags": [options.name], "Layers": files}]
    with tarfile.open(options.archive, "w") as tar:
        for name, content in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, layer in zip(files, layers, strict=True):
            tar.add(layer, arcname=name)
    if os.path.exists(own):
        os.remove(own)


if __name__ == "__main__":
    main()
