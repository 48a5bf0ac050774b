"""Pictures of a video by their times, decoded with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lightvla_ros.errors import DemonstrationError, one_line


def frames_at(file: Path, times: np.ndarray, tolerance: float) -> Iterator[np.ndarray]:
    """Yield the pictures nearest to some times: uint8 [H, W, 3] RGB.

    Seeking lands on the key frame before the first time, and from there on all is decoded once.

    :param times: Seconds from the video's beginning, ascending.
    :param tolerance: Largest distance of a picture from its time [s].
    :raises DemonstrationError: When the video cannot be decoded, or lacks one of them.
    """
    import av  # of the extra `data`

    if not len(times):
        return
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            # av counts in the stream's own ticks; a tick early, as times are rounded
            start = max(0, round(float(times[0]) / stream.time_base) - 1)
            container.seek(start, backward=True, any_frame=False, stream=stream)
            waiting, nearest = 0, None
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                now = float(frame.pts * stream.time_base)
                # a later picture is the nearer one of this time, or of none that waits
                while nearest is not None and waiting < len(times):
                    wanted = float(times[waiting])
                    if abs(now - wanted) <= abs(nearest[0] - wanted):
                        break
                    yield _picture(file, nearest, wanted, tolerance)
                    waiting += 1
                if waiting == len(times):
                    return
                nearest = now, frame
            for wanted in map(float, times[waiting:]):
                yield _picture(file, nearest, wanted, tolerance)
    except FileNotFoundError:
        raise DemonstrationError(f'{file}: is missing; is the download complete?') from None
    # IndexError: no video in it; ValueError: text in it that is none
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise DemonstrationError(f'{file}: cannot be decoded ({one_line(error)})') from None


def _picture(file: Path, nearest: tuple | None, wanted: float, tolerance: float) -> np.ndarray:
    if nearest is None or abs(nearest[0] - wanted) > tolerance:
        found = 'nothing' if nearest is None else f'{nearest[0]:.3f} s'
        raise DemonstrationError(
            f'{file}: has no picture at {wanted:.3f} s; the nearest is at {found}'
        )
    return nearest[1].to_ndarray(format='rgb24')
