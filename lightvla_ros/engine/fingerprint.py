"""The identity of what would run: the graphs, and all that decides how they are computed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lightvla_ros.manifest import Manifest


def fingerprint(facts: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of facts as sorted JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def graph_facts(manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of each file that a graph consists of: weights may lie in ``NAME.data``.

    A policy folder is checked when it is loaded, so these are the hashes of what is on disk.
    """
    graphs = manifest.graphs
    names = (graphs.encode, graphs.act, graphs.embedding)
    return {
        file: manifest.files[file]
        for name in names
        for file in (name, f'{name}.data')
        if file in manifest.files
    }
