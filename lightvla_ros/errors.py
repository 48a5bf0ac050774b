"""All our errors have one root; the command line catches it, and OSError, in one place.

Those that one module alone raises are declared there, which is named beside them::

    LightVLAError
    ├── ArgumentError
    ├── BenchError
    ├── CheckpointError
    ├── ChildError              nodes.demo.processes
    ├── ConfigError
    ├── ContractError
    ├── DemonstrationError
    │   └── DamagedFileError
    ├── EngineError
    ├── EpisodeAbortedError     nodes.bridge_modes
    ├── EpisodeError            nodes.demo.conductor
    ├── EvaluationError
    ├── ExportError
    │   └── BuildError
    ├── ImageError
    ├── InputError              nodes.conversions
    ├── InstructionError
    ├── LockedError             files
    ├── MessageError            nodes.conversions
    ├── MissingMarkersError     nodes.reference
    ├── OrderError              nodes.view.server
    ├── ParameterError          nodes.parameters
    ├── PolicyOutputError
    ├── RecordingError          demonstrations.bag_writer
    ├── RenderingError
    ├── SimulationError
    ├── TrainError
    ├── TransitionError         nodes.lifecycle
    └── WriteError              files
"""

from __future__ import annotations

LIMIT = 120


class LightVLAError(Exception):
    """Root of all errors. The message is one line: what is wrong, and what to do."""


class ArgumentError(LightVLAError):
    """Command-line arguments that are invalid, alone or together; raised before anything runs."""


class EvaluationError(LightVLAError):
    """An evaluation that cannot be done. One line: what is wrong, and what to do."""


class ExportError(LightVLAError):
    """An export that cannot be made; one line names the part or option, and what to try."""


class TrainError(LightVLAError):
    """A training run that cannot start or continue; one line: the fault, and what to do."""


class CheckpointError(LightVLAError):
    """A checkpoint that cannot be trusted; one line: the file, the fault, and what to do."""


class DemonstrationError(LightVLAError):
    """Demonstrations that cannot be used; one line names the file, the episode and the fix."""


class DamagedFileError(DemonstrationError):
    """A file that cannot be read completely; other files can be used without it.

    :param place: The file, or an episode in it.
    :param form: What it should be.
    """

    def __init__(self, place: object, reason: str, form: str = 'HDF5') -> None:
        super().__init__(str(place), reason, form)

    def __str__(self) -> str:
        place, reason, form = self.args
        return (
            f'{place}: cannot be read as {form} ({reason}); remove it, or download or record it '
            'again'
        )


class BenchError(LightVLAError):
    """A measurement that cannot be made; one line names the option, and what to try."""


class ContractError(LightVLAError):
    """A policy folder that cannot be trusted. One line: where, and what is wrong."""


class EngineError(LightVLAError):
    """An engine that cannot be loaded with its options, or that failed while running. One line."""


class BuildError(ExportError):
    """A plan that cannot be built; one line names the graph, the layer or option, and a remedy."""


class ImageError(LightVLAError):
    """An image that cannot be used.

    :param code: One of ``reasons.REASONS``.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class InstructionError(LightVLAError, ValueError):
    """An instruction that is refused; one line says why."""


class PolicyOutputError(LightVLAError):
    """The engine returned an output that must not move a robot."""


class SimulationError(LightVLAError):
    """A request that the simulation cannot fulfil; one line says what would work."""


class RenderingError(LightVLAError):
    """Rendering is not possible on this machine; the message says what to install."""


class ConfigError(LightVLAError, ValueError):
    """An invalid configuration; one line names the field and what is allowed."""


def sentence(error: BaseException) -> str:
    """Return an error's message as one line, with the error's type unless the text explains itself.

    The texts of :class:`LightVLAError` explain themselves; for an :class:`OSError` the line names
    the files and the system's message.
    """
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        text = ': '.join((' -> '.join(names), error.strerror)) if names and error.strerror else ''
        text = text or error.strerror or str(error) or type(error).__name__
    elif isinstance(error, LightVLAError):
        text = str(error)
    else:
        text = f'{type(error).__name__}: {error}'
    return ' '.join(text.split())


def one_line(text: object) -> str:
    """Return a message as one line of at most 300 characters."""
    return ' '.join(str(text).split())[:300]


def quoted(text: str) -> str:
    """Return untrusted text of any length in quotes, as one line of at most 120 characters.

    A longer text is cut, and only its beginning is processed: a frame_id may have 3 MB. Line ends,
    escape sequences, direction marks and all other characters that are not printable are escaped.
    """
    shown = repr(text[: LIMIT + 1])
    return shown if len(shown) <= LIMIT else f'{shown[: LIMIT - 2]}…{shown[0]}'
