"""Puts new plans into a policy folder, which stays consistent at almost any time."""

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
    """Make a folder for unlisted plans, because a policy folder that holds one is refused.

    It is beside the policy folder, so that plans can be moved there without a copy.

    :raises BuildError: When it cannot be made.
    """
    policy_dir = policy_dir.resolve()
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=f'{policy_dir.name}-plans-', dir=policy_dir.parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise BuildError(
            f'{policy_dir.parent}: {error.strerror}; plans are stored there until both are built'
        ) from None
    with folder as name:
        yield Path(name)


def list_plans(policy_dir: Path, manifest: Manifest, new: BuiltEngine, folder: Path) -> None:
    """Move the new plans into the policy folder, list them, and remove the plans they replace.

    There are two steps, because a policy folder is refused while its files differ from its
    manifest. The first step hashes and lists the new plans; if the power fails then, the folder
    still has all its old files, and the refusal names the file to remove. The second step removes
    the old plans, which takes a moment.

    :param manifest: The folder's current manifest.
    :param folder: Folder that holds the new plans.
    :raises ContractError: See :func:`amend_manifest`; the old plans stay in the folder.
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
    gone = {e.fingerprint for e in old}  # the same facts built again give different plans
    with _moved([(policy_dir / name, folder / name) for name in dropped]):
        amend_manifest(
            policy_dir,
            dropped_files=dropped,
            engines=[asdict(e) for e in kept],
            verified=[v.as_dict() for v in manifest.verified if v.fingerprint not in gone],
        )


def _same_gpu(one: BuiltEngine, other: BuiltEngine) -> bool:
    facts = ('gpu', 'compute_capability')
    return all(one.facts.get(fact) == other.facts.get(fact) for fact in facts)


def _names(engines: Sequence[BuiltEngine]) -> set[str]:
    return {name for engine in engines for name in (engine.encode, engine.act)}


@contextlib.contextmanager
def _moved(moves: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """Move files from the first to the second path, and back if the body fails."""
    try:
        for source, target in moves:
            # this copies if the policy folder is on a separate file system, such as a mount
            shutil.move(source, target)
        yield
    except BaseException:  # also Ctrl-C
        for source, target in moves:
            if source.exists():  # not moved, or not completely
                target.unlink(missing_ok=True)
            else:
                shutil.move(target, source)
        raise
