"""The types of a manifest's contents. ``folder.py`` reads and checks manifests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

ACTION_SIZE = 7  # x, y, z, axis-angle x, y, z, gripper
PROPRIO_SIZES = {'ee_position': 3, 'ee_axis_angle': 3, 'gripper_qpos': 2}
PROPRIO_LAYOUT = tuple(PROPRIO_SIZES)  # the whole measured state, as recordings have it
PROPRIO_UNITS = {'ee_position': 'm', 'ee_axis_angle': 'rad', 'gripper_qpos': 'm'}
EXECUTIONS = ('spring', 'displacement')  # what a step is to the arm; see Action
POINTING_DOWN = (1.0, 0.0, 0.0, 0.0)  # quaternion x y z w: half a turn about x

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Camera:
    """One camera as the policy sees it.

    :param name: Its name in topics (``<name>/image``) and in every report.
    :param size: Height and width of the model's input [px].
    :param rotate_degrees: 0 or 180, applied to the upright true view.
    :param mirror: Whether the view is mirrored left to right after that.
    :param aspect: Width over height of the pictures that the policy was trained on.
    :param fit: What happens to pictures of another aspect ratio: they are refused (``refuse``),
        cut at their sides (``crop``), padded with black (``pad``) or distorted (``stretch``).
    """

    name: str
    size: tuple[int, int]
    rotate_degrees: int
    mirror: bool
    aspect: float = 1.0
    fit: str = 'refuse'


@dataclass(frozen=True)
class Normalisation:
    """(x / 255 - mean) / std of one vision tower, per RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How an upright RGB image becomes the model's input (``policy/preprocessor.py``)."""

    jpeg_quality: int | None
    crop_area: float
    normalisation: tuple[Normalisation, ...]


@dataclass(frozen=True)
class Prompt:
    """How an instruction becomes token ids; see ``policy/prompt.py``."""

    template: str
    lowercase: bool
    tokenizer: str
    append_ids: tuple[int, ...]
    length: int


@dataclass(frozen=True)
class Proprio:
    """The state vector: parts in order, and the 1 % and 99 % quantiles that map to -1 and 1.

    :param quaternion_reference: x y z w; ``ee_axis_angle`` is computed from q or -q (both are the
        same rotation), whichever has a dot product >= 0 with it. LIBERO's hand points down.
    """

    layout: tuple[str, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    quaternion_reference: tuple[float, ...] = POINTING_DOWN

    @property
    def size(self) -> int:
        """Length of the state vector."""
        return sum(PROPRIO_SIZES[part] for part in self.layout)


@dataclass(frozen=True)
class Action:
    """Meaning of the policy's 7 numbers per step.

    :param control_period: Seconds per step.
    :param translation_scale: Metres per unit (robosuite OSC_POSE: 0.05).
    :param rotation_scale: Radians per unit (robosuite OSC_POSE: 0.5).
    :param mask: True for numbers that are normalised by ``q01`` and ``q99``.
    :param gripper_closed: Un-normalised value of the seventh number that means closed.
    :param gripper_open: Un-normalised value of the seventh number that means open.
    :param reference: What a delta is added to: ``measured_pose`` or ``previous_target``.
    :param slice: Which hidden states the head reads: ``training`` (the prompt's last token and all
        action slots but the last: [-58:-2] for 56 slots) or ``release`` ([-56:]). Training reads
        the former. LightVLA's released inference reads the latter, two positions late
        (LightVLA#26).
    :param execution: What a step is to the arm: ``spring``, a set-point ahead of the measured pose
        that pulls at the arm (robosuite OSC_POSE, so every policy of LIBERO), or ``displacement``,
        a way that the arm is meant to cover within the step.
    """

    chunk_length: int
    control_period: float
    translation_scale: float
    rotation_scale: float
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    mask: tuple[bool, ...]
    gripper_closed: float
    gripper_open: float
    reference: str
    slice: str
    execution: str = 'spring'


@dataclass(frozen=True)
class Tokens:
    """Visual tokens: patch size [px] and the bucket sizes of the act graph, ascending."""

    patch_size: int
    buckets: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """The PyTorch model: ``VLAConfig``'s fields and the files of its weights."""

    config: dict[str, Any]
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Graphs:
    """File names of the two graphs and of their table of embeddings.

    A graph's large weights are stored beside it in ``NAME.data``.

    :param precision: Precision of both graphs: ``fp32``, ``fp16`` or ``bf16``.
    """

    encode: str
    act: str
    embedding: str
    precision: str


@dataclass(frozen=True)
class BuiltEngine:
    """The graphs, built for one kind of machine.

    :param target: ``tensorrt``.
    :param fingerprint: Fingerprint of ``facts``.
    :param facts: Everything that the build depends on: graphs, versions, GPU, profiles.
    """

    target: str
    fingerprint: str
    facts: dict[str, Any]
    encode: str
    act: str


@dataclass(frozen=True)
class Trial:
    """How an engine did in simulated episodes, or on a recording of a policy node.

    :param kind: ``episodes``, which it had to solve, or ``observations``, to which it had to give
        the recorded answers within the tolerance of its precision.
    :param source: LIBERO's suites and the rendering; or the recording and its engines.
    :param count: Number of episodes or observations.
    :param rate: Share of successes; ``low`` and ``high`` are its Wilson 95 % interval.
    """

    kind: str
    source: str
    date: str
    count: int
    successes: int
    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        what = 'solved' if self.kind == 'episodes' else 'answered as recorded'
        return (
            f'{self.successes} of {self.count} {self.kind} {what} ({self.rate:.1%}, Wilson '
            f'{self.low:.1%} to {self.high:.1%}; {self.source}; {self.date})'
        )


@dataclass(frozen=True)
class Verification:
    """Result of ``lightvla verify`` for an engine; a node runs only engines that passed.

    :param fingerprint: The engine's fingerprint.
    :param reference: What it was compared with: ``torch``, or ``golden`` if PyTorch is missing.
    :param figures: Counts and errors, by name.
    :param trials: At most one of each kind, the newest; a node does not read them.
    """

    fingerprint: str
    backend: str
    precision: str
    date: str
    reference: str
    passed: bool
    figures: dict[str, Any]
    trials: tuple[Trial, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all fields for JSON; without trials those that older releases can read."""
        fields = asdict(self)
        trials = list(fields.pop('trials'))
        return fields | {'trials': trials} if trials else fields


@dataclass(frozen=True)
class Golden:
    """File of recorded observations, and the tolerances within which outputs must repeat."""

    file: str
    action_tolerance: float
    min_jaccard: float


@dataclass(frozen=True)
class Fp8:
    """Measured activations of the decoder, for the engine ``torch-cuda`` in fp8.

    :param largest: Per decoder layer the largest magnitude of the inputs of its four products
        (``vla/fp8.py``).
    :param observations: Number of observations in which they were measured.
    """

    largest: tuple[tuple[float, ...], ...]
    observations: int


Range = tuple[float, float, float]  # 1 % quantile, median, 99 % quantile


@dataclass(frozen=True)
class Familiarity:
    """What is usual in recorded observations, for the alarm (``policy/familiarity.py``).

    :param observations: Number of observations in which it was measured.
    :param score: Largest deviation of a signal that 99 % of the observations stay below.
    :param signals: By name, over all observations.
    :param by_instruction: The same for each instruction with enough observations.
    """

    observations: int
    score: float
    signals: dict[str, Range]
    by_instruction: dict[str, dict[str, Range]]


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. Build it with :func:`lightvla_ros.contract.folder.load_manifest`.

    :param model: None if the folder holds only graphs.
    :param graphs: None before export, and in a folder that was exported for ``torch-cuda`` alone.
    :param golden: None before export.
    :param fp8: None before ``lightvla calibrate``.
    :param familiarity: None before ``lightvla alarm calibrate``.
    """

    schema_version: int
    name: str
    cameras: tuple[Camera, ...]
    preprocessing: Preprocessing
    prompt: Prompt
    proprio: Proprio | None
    action: Action
    tokens: Tokens
    model: Model | None
    graphs: Graphs | None
    golden: Golden | None
    engines: tuple[BuiltEngine, ...]
    verified: tuple[Verification, ...]
    files: dict[str, str]
    provenance: dict[str, Any]
    fp8: Fp8 | None = None
    familiarity: Familiarity | None = None

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Number of rows and columns of patches per camera."""
        height, width = self.cameras[0].size
        return height // self.tokens.patch_size, width // self.tokens.patch_size

    @property
    def patches_per_camera(self) -> int:
        """Number of visual tokens per camera before pruning."""
        rows, columns = self.patch_grid
        return rows * columns

    @property
    def graph_hashes(self) -> dict[str, str]:
        """SHA-256 of each file of the graphs, including weights in ``NAME.data``."""
        if self.graphs is None:
            return {}
        names = (self.graphs.encode, self.graphs.act, self.graphs.embedding)
        return {
            file: self.files[file]
            for name in names
            for file in (name, f'{name}.data')
            if file in self.files
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all files; it identifies the folder."""
        return fingerprint(self.files)


def fingerprint(facts: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of facts as sorted JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
