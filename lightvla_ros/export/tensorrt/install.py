"""Putting new plans into a policy folder, so that it is consistent at almost any time."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from lightvla_ros.contract import BuiltEngine, Manifest, amend_manifest
from lightvla_ros.errors import BuildError


@contextlib.contextmanager
def folder_beside(policy_dir: Path) -> Iterator[Path]:
    """Make a folder for plans that are not listed yet: a policy folder with one is refused.

    It lies beside the policy folder, so that a plan need not be copied to get there.

    :raises BuildError: When it cannot be made.
    """
    policy_dir = policy_dir.resolve()
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=f'{policy_dir.name}-plans-', dir=policy_dir.parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise BuildError(
            f'{policy_dir.parent}: {error.strerror}; plans lie there until both are built'
        ) from None
    with folder as name:
        yield Path(name)


def list_plans(policy_dir: Path, manifest: Manifest, new: BuiltEngine, folder: Path) -> None:
    """Move the new plans into the policy folder, list them, and drop those that they replace.

    In two steps, since a policy folder is refused while its files are not those of its manifest.
    The first lasts for as long as the new plans are hashed; should the power fail in it, the folder
    has all that it had, and its refusal names the file to remove. Only when the new ones are listed
    do the old ones leave, which takes a moment.

    :param manifest: The folder's, as it is now.
    :param folder: Where the new plans lie.
    :raises ContractError: As :func:`amend_manifest`; the folder is as before, or has old plans too.
    """
    added = (new.encode, new.act)
    both = [asdict(engine) for engine in (*manifest.engines, new)]
    with _moved([(folder / name, policy_dir / name) for name in added]):
        manifest = amend_manifest(policy_dir, new_files=added, engines=both)

    old = [e for e in manifest.engines[:-1] if _same_gpu(e, new)]  # they can never load again
    if not old:
        return
    kept = [e for e in manifest.engines if e not in old]
    dropped = sorted(_names(old) - _names(kept))
    gone = {e.fingerprint for e in old}  # plans of the same facts, built later, are others
    with _moved([(policy_dir / name, folder / name) for name in dropped]):
        amend_manifest(
            policy_dir,
            dropped_files=dropped,
            engines=[asdict(e) for e in kept],
            verified=[asdict(v) for v in manifest.verified if v.fingerprint not in gone],
        )


def _same_gpu(one: BuiltEngine, other: BuiltEngine) -> bool:
    facts = ('gpu', 'compute_capability')
    return all(one.facts.get(fact) == other.facts.get(fact) for fact in facts)


def _names(engines: Sequence[BuiltEngine]) -> set[str]:
    return {name for engine in engines for name in (engine.encode, engine.act)}


@contextlib.contextmanager
def _moved(moves: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """Move files from the first to the second path; back again should what follows fail."""
    try:
        for source, target in moves:
            # a copy where the policy folder is a file system of its own, as a mounted one is
            shutil.move(source, target)
        yield
    except BaseException:  # also Ctrl-C
        for source, target in moves:
            if source.exists():  # not moved, or not wholly
                target.unlink(missing_ok=True)
            else:
                shutil.move(target, source)
        raise
