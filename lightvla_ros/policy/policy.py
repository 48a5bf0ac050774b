"""A loaded policy, which turns an observation into an action chunk.

The stages are: preprocess, encode, choose a bucket, act, postprocess. Every result holds the time
of each stage.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from lightvla_ros.contract import Golden, Manifest, load_manifest
from lightvla_ros.engine import ENGINES, FROM_WEIGHTS, load_engine
from lightvla_ros.engine.base import Engine, PromptIds, smallest_bucket
from lightvla_ros.errors import ContractError, PolicyOutputError
from lightvla_ros.policy.actions import Chunk, chunk_from_policy
from lightvla_ros.policy.golden_file import read_golden
from lightvla_ros.policy.observation import Observation, observations
from lightvla_ros.policy.preprocessor import Preprocessor
from lightvla_ros.policy.prompt import PromptEncoder, check_instruction
from lightvla_ros.policy.state import RobotState, normalise_proprio, state_vector
from lightvla_ros.policy.tolerances import TOLERANCES, Tolerance, jaccard


@dataclass(frozen=True)
class StageTimes:
    """Duration of each stage [s], on a steady clock."""

    preprocess: float
    encode: float
    act: float
    postprocess: float

    @property
    def inference(self) -> float:
        """Duration of both engine calls and of the choice of the bucket between them [s]."""
        return self.encode + self.act


@dataclass(frozen=True)
class Prediction:
    """A chunk, and how it was computed.

    :param chunk: The steps.
    :param normalised: float32 [chunk_length, 7], the head's output, unchanged.
    :param kept: Number of kept visual tokens per camera.
    :param kept_patches: int64 [K], see :meth:`Engine.kept_patches`.
    :param bucket: Number of visual tokens the act graph ran with; 0 if it did not run.
    :param times: Duration of each stage.
    :param backend: Engine that ran the graphs, such as ``onnxruntime-cpu``.
    :param precision: Precision of the engine, such as ``fp32``.
    """

    chunk: Chunk
    normalised: np.ndarray
    kept: tuple[int, ...]
    kept_patches: np.ndarray
    bucket: int
    times: StageTimes
    backend: str
    precision: str


class Policy:
    """A loaded policy folder with an engine. Not thread-safe.

    :ivar policy_dir: The folder.
    """

    def __init__(self, policy_dir: Path, manifest: Manifest, engine: Engine) -> None:
        self.manifest = manifest
        self.engine = engine
        self.policy_dir = Path(policy_dir)
        self._preprocess = Preprocessor(manifest.cameras, manifest.preprocessing)
        self._encode_prompt = PromptEncoder(
            manifest.prompt,
            self.policy_dir / manifest.prompt.tokenizer,
            _vocabulary(self.policy_dir, manifest),
        )

    @classmethod
    def load(
        cls,
        policy_dir: Path | str,
        engine: str = 'onnxruntime',
        threads: int = 1,
        unchecked: bool = False,
        **options: Any,
    ) -> Policy:
        """Read a policy folder, load the named engine for it, and check both for use on a robot.

        The same engine must have passed ``lightvla verify``, and must reproduce the recorded
        outputs for the folder's golden observations, which also warms it up. The engine ``torch``
        is the reference of the others, so both checks are skipped for it.

        :param threads: Number of threads of the engine and of preprocessing.
        :param unchecked: Skip both checks, to verify or time an engine; never move a robot then.
        :param options: Options of the engine, see :func:`lightvla_ros.engine.load_engine`.
        :raises ContractError: When the folder or the engine's outputs cannot be trusted.
        :raises EngineError: When the engine cannot be loaded with these options.
        """
        policy_dir = Path(policy_dir)
        manifest = load_manifest(policy_dir)
        if manifest.graphs is None and engine not in FROM_WEIGHTS:
            raise ContractError(
                f'{policy_dir}: it holds weights but no graphs; export it first: '
                f'lightvla export --policy {policy_dir} --out DIR'
            )
        # NumPy's and OpenCV's own threads spin while they wait: on a busy machine preprocessing
        # took 128 ms with two threads and 10 ms with one.
        threadpool_limits(threads, user_api='blas')
        cv2.setNumThreads(threads)
        loaded = load_engine(engine, policy_dir, manifest, threads=threads, **options)
        try:
            policy = cls(policy_dir, manifest, loaded)
            if not unchecked and engine != 'torch':
                policy.require_verified()
                policy.replay_golden()
        except BaseException:
            loaded.close()  # GPU memory is not freed automatically
            raise
        return policy

    def __enter__(self) -> Policy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def act(self, observation: Observation) -> Chunk:
        """Predict the next chunk; :meth:`infer` also returns how it was computed.

        :raises ValueError: See :meth:`infer`, also for other errors.
        """
        return self.infer(observation).chunk

    def check_instruction(self, text: str) -> str:
        """Return the instruction as :func:`check_instruction` does, if the policy can use it.

        An instruction that passes does not fail in :meth:`infer`. Safe from any thread.

        :raises InstructionError: When it is not valid (see ``prompt.py``), its prompt is longer
            than the graphs allow, or the policy knows none of its words.
        """
        text = check_instruction(text)
        self._encode_prompt(text)
        self._encode_prompt.unknown_words(text)
        return text

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a checked instruction that the policy's tokenizer does not know.

        Safe from any thread.
        """
        return self._encode_prompt.unknown_words(text)

    def prepare(self, observation: Observation) -> tuple[np.ndarray, PromptIds, np.ndarray | None]:
        """Return the arguments of :meth:`Engine.encode`: pixels, prompt and proprio.

        :raises ValueError: When the observation does not fit the manifest.
        """
        pixels = self._preprocess(observation.images)
        prompt = self._encode_prompt(observation.instruction)
        spec, state = self.manifest.proprio, observation.state
        if isinstance(state, RobotState):
            state = None if spec is None else state_vector(spec, state)
        return pixels, prompt, normalise_proprio(state, spec)

    def infer(self, observation: Observation) -> Prediction:
        """Predict the next chunk.

        :raises ValueError: When the observation does not fit the manifest.
        :raises EngineError: When the engine fails.
        :raises PolicyOutputError: When the output has another shape or is not finite.
        """
        manifest = self.manifest
        started = time.perf_counter()
        inputs = self.prepare(observation)
        preprocessed = time.perf_counter()
        encoded = self.engine.encode(*inputs)
        encoded_at = time.perf_counter()
        bucket = 0
        if not encoded.again:
            bucket = smallest_bucket(manifest.tokens.buckets, sum(encoded.kept))
        actions = self.engine.act(encoded, bucket)
        acted = time.perf_counter()
        check_output(actions, manifest.action.chunk_length)
        chunk = chunk_from_policy(actions, manifest.action)
        kept_patches = self.engine.kept_patches(encoded)
        finished = time.perf_counter()
        return Prediction(
            chunk=chunk,
            normalised=actions,
            kept=encoded.kept,
            kept_patches=kept_patches,
            bucket=bucket,
            times=StageTimes(
                preprocess=preprocessed - started,
                encode=encoded_at - preprocessed,
                act=acted - encoded_at,
                postprocess=finished - acted,
            ),
            backend=self.engine.backend,
            precision=self.engine.precision,
        )

    def replay_golden(self) -> None:
        """Run the folder's golden observations and compare with the outputs recorded at export.

        This also warms the engine up.

        The limits are the manifest's, or for an engine in another precision than the graphs those
        of this precision (``tolerances.py``).

        :raises ContractError: When there are none, or the kept patches differ by more than is
            allowed, or the actions do although the kept patches are equal.
        """
        data = read_golden(self.policy_dir, self.manifest)
        golden, graphs = self.manifest.golden, self.manifest.graphs
        assert golden is not None, 'read_golden refuses a folder without'
        limits: Golden | Tolerance = golden
        if graphs is None or graphs.precision != self.engine.precision:
            limits = TOLERANCES[self.engine.precision]
        path = self.policy_dir / golden.file
        for index, observation in enumerate(observations(self.manifest, data)):
            prediction = self.infer(observation)
            overlap = jaccard(np.flatnonzero(data['kept'][index]), prediction.kept_patches)
            error = float(np.abs(prediction.normalised - data['actions'][index]).max())
            # With another kept set the actions are a different decision, not a rounding error.
            wrong = overlap == 1 and not error <= limits.action_tolerance
            if overlap < limits.min_jaccard or wrong:
                raise ContractError(
                    f'{path}: observation {index} gives a different result on '
                    f'{self.engine.backend}: kept patches overlap {overlap:.3f} (at least '
                    f'{limits.min_jaccard} needed), actions differ by {error:.2g} (at most '
                    f'{limits.action_tolerance:g}); export the policy again or use another engine'
                )

    def example_instruction(self) -> str:
        """Return an instruction from the golden observations, which the policy knows."""
        return str(read_golden(self.policy_dir, self.manifest)['instruction'][-1])

    def require_verified(self) -> None:
        """Refuse an engine that has not passed ``lightvla verify`` with the present fingerprint.

        :raises ContractError: When the manifest has no entry that it passed.
        """
        found = [e for e in self.manifest.verified if e.fingerprint == self.engine.fingerprint]
        if not found or not found[-1].passed:
            state = 'did not pass its verification' if found else 'was never verified'
            backend = self.engine.backend
            name = backend if backend in ENGINES else backend.split('-')[0]
            raise ContractError(
                f'{self.policy_dir}: {backend} on this machine '
                f'({self.engine.fingerprint[:12]}) {state}; run `lightvla verify '
                f'{self.policy_dir} --engine {name} --precision '
                f'{self.engine.precision}` and read its result'
            )

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


def _vocabulary(policy_dir: Path, manifest: Manifest) -> int:
    """Return how many token ids have an embedding in the graphs, or else in the weights.

    :raises ContractError: When the graphs' file of embeddings is not a table.
    """
    if manifest.graphs is None:
        assert manifest.model is not None, 'load_manifest refuses a folder without either'
        return manifest.model.config['language']['vocabulary']
    path = policy_dir / manifest.graphs.embedding
    try:
        (vocabulary, _) = np.load(path, mmap_mode='r', allow_pickle=False).shape
    except (ValueError, EOFError):
        raise ContractError(
            f'{path}: not a table of embeddings [vocabulary, D]; export the policy again'
        ) from None
    return vocabulary


def check_output(actions: np.ndarray, chunk_length: int) -> None:
    """Refuse an output of the head that must not move a robot.

    :raises PolicyOutputError: When the shape is not [chunk_length, 7] or a number is not finite.
    """
    if actions.shape != (chunk_length, 7):
        raise PolicyOutputError(
            f'the engine returned actions of shape {actions.shape}, not {(chunk_length, 7)}'
        )
    if not np.isfinite(actions).all():
        raise PolicyOutputError('the engine returned NaN or infinite actions')
