"""What the identity of an engine is made of: the graphs, and all that decides their computing."""

from __future__ import annotations

from lightvla_ros.manifest import Manifest, fingerprint

__all__ = ['fingerprint', 'graph_facts']


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
