"""The policy folder, on which training and deployment agree. Import the names below from here.

- ``document``: a new policy's manifest, from its robot's contract
- ``folder``: reads, checks and writes a policy folder's manifest
- ``libero``: the contract of LIBERO's Panda (``config/robots/libero.yaml``)
- ``manifest``: the types of a manifest's contents
- ``robot``: a robot's contract: cameras, state, steps, hand, frames, workspace
- ``suites``: LIBERO's suites of tasks, and LIBERO-PRO's
"""

from lightvla_ros.contract.folder import (
    MANIFEST_NAME,
    SCHEMA_PATH,
    SCHEMA_VERSION,
    amend_manifest,
    file_sha256,
    load_manifest,
    parse_manifest,
    write_manifest,
)
from lightvla_ros.contract.manifest import (
    ACTION_SIZE,
    POINTING_DOWN,
    PROPRIO_LAYOUT,
    PROPRIO_SIZES,
    Action,
    BuiltEngine,
    Camera,
    Familiarity,
    Golden,
    Graphs,
    Manifest,
    Normalisation,
    Preprocessing,
    Prompt,
    Proprio,
    Trial,
    Verification,
    fingerprint,
)

__all__ = [
    'ACTION_SIZE',
    'Action',
    'BuiltEngine',
    'Camera',
    'Familiarity',
    'Golden',
    'Graphs',
    'MANIFEST_NAME',
    'Manifest',
    'Normalisation',
    'POINTING_DOWN',
    'PROPRIO_LAYOUT',
    'PROPRIO_SIZES',
    'Preprocessing',
    'Prompt',
    'Proprio',
    'SCHEMA_PATH',
    'SCHEMA_VERSION',
    'Trial',
    'Verification',
    'amend_manifest',
    'file_sha256',
    'fingerprint',
    'load_manifest',
    'parse_manifest',
    'write_manifest',
]
