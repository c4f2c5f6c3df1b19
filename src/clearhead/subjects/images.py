"""Images become patches or pixels: opened with care, shown as the model saw them."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clearhead.errors import UsageError
from clearhead.question import Grid, Layout, Pass
from clearhead.subjects.encoded import Encoded
from clearhead.units import Unit

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000  # of an image that is opened: 8,000 by 8,000
MOST_BYTES = 100_000_000  # of its file
BLOCK = 16  # pixels along the side of a part, for models that do not cut images into patches
SHOWN = 200  # characters of a file name in a message
MOST_UNITS = 2**18  # pixels that are units of their own: 512 by 512


def is_image(given: object) -> bool:
    """Is this an image, in memory or by its path? A string may be one too, where a model reads images."""
    return isinstance(given, (Path, np.ndarray)) or type(given).__module__.partition(".")[0] == "PIL"


def read(processor: Any, given: Any, config: Any, *, pixels: bool, device: torch.device, dtype: torch.dtype) -> Encoded:
    """An image as its model takes it, in numbers of the model's type; units are the model's patches, or all pixels.

    `given` is a Pillow image, a path, or an array of bytes [height, width] or [height, width, 3]. Raises UsageError
    for anything else, and for what cannot be opened or is too large.
    """
    image, notes = opened(given)
    values: Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
    if values.dim() != 4 or values.shape[0] != 1:
        raise UsageError(
            f"The model's processor must make one picture of an image, [1, channels, height, width]; found "
            f"{tuple(values.shape)}. Pass tensors and a target function."
        )
    grid = _grid(values, config, pixels=pixels)
    tensor = values.to(device=device, dtype=dtype)
    layout = Layout(units=_units(grid, values.shape[-2], values.shape[-1]), grid=grid)
    ends = _range(processor, tensor)
    return Encoded(
        part=Pass(
            tensors={"pixel_values": tensor},
            explained=("pixel_values",),
            ranges={} if ends is None else {"pixel_values": ends},
        ),
        layout=layout,
        pictures={grid.stream: _seen(values[0], processor)},
        notes=tuple(notes),
    )


# ---- opening -------------------------------------------------------------------------------------------------------


def opened(given: Any) -> tuple[Image, list[str]]:
    """The image in three channels of 8 bits, upright, and notes about what was changed. Raises UsageError."""
    from PIL import Image, ImageOps

    if isinstance(given, np.ndarray):
        image = _from_array(given)
    elif isinstance(given, (str, Path)):
        image = _from_file(Path(given))
    elif isinstance(given, Image.Image):
        image = given
    else:
        raise UsageError(
            f"An image must be a path, a Pillow image or an array of bytes; found {type(given).__name__}. Tensors are "
            "passed as a mapping, {'pixel_values': ...}."
        )
    _check_size(image.width, image.height)
    _check_mode(image.mode)
    notes = []
    frames = image.info.get("frames", getattr(image, "n_frames", 1))
    if isinstance(frames, int) and frames > 1:
        notes.append(f"The image has {frames} frames; the first was explained.")
    try:
        upright = ImageOps.exif_transpose(image)
        converted, more = _three_channels(upright)
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"The image cannot be read to its end: {_said(error)}. Save it again.") from error
    return converted, [*notes, *more]


def _from_array(array: np.ndarray[Any, Any]) -> Image:
    from PIL import Image

    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UsageError(
            f"An image array must hold bytes (uint8) [height, width], [height, width, 3] or [height, width, 4]; found "
            f"{array.dtype} {list(array.shape)}. Scale to 0..255, put channels last, and use .astype('uint8')."
        )
    _check_size(array.shape[1], array.shape[0])
    return Image.fromarray(array)


def _from_file(path: Path) -> Image:
    from PIL import Image

    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:  # a name that no file can have
        size = None
    if size is None:
        raise UsageError(
            f"An image is a file that exists and no folder; {shortened(str(path))!r} is none. Check the path."
        )
    if size > MOST_BYTES:
        raise UsageError(f"An image file has at most {MOST_BYTES:,} bytes; {path.name!r} has {size:,}. Shrink it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(image.width, image.height)
                image.load()
                return _copied(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(f"{path.name!r} with {_pixels(error)}") from error
    except UsageError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(
            f"The file {path.name!r} cannot be read as an image: {_said(error)}. Save it again, as PNG or JPEG."
        ) from error


def _said(error: Exception) -> str:
    """What an error says, without the stop at its end."""
    return str(error).rstrip(".")


def _pixels(error: Exception) -> str:
    """The size of an image that Pillow refused to open, which only its message tells."""
    said = re.search(r"\((\d+) pixels\)", str(error))
    return f"{int(said[1]):,}" if said else "more"


def _copied(image: Image) -> Image:
    """The first frame in memory, its file closed; how many frames there were is kept beside it."""
    copy = image.copy()
    copy.info["frames"] = getattr(image, "n_frames", 1)
    return copy


def shortened(name: str) -> str:
    """A name as a message can hold it."""
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}..."


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _too_large(f"one of {width} x {height}")
    if width < 1 or height < 1:
        raise UsageError(f"An image has at least one pixel; found {width} x {height}.")


def _too_large(what: str) -> UsageError:
    return UsageError(f"An image has at most {MOST_PIXELS:,} pixels; found {what}. Scale it down first.")


def _check_mode(mode: str) -> None:
    """Refuse modes of more than 8 bits, which Pillow would cut off at 255 without a word."""
    if mode in {"I", "F"} or mode.startswith("I;"):
        raise UsageError(
            f"An image has 8 bits per channel; found mode {mode}. Scale it to 0..255 and convert it to mode L or RGB."
        )


def _three_channels(image: Image) -> tuple[Image, list[str]]:
    """The image in RGB, transparency on white."""
    from PIL import Image

    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image, []
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        over = image.convert("RGBA")
        ground = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(ground, over).convert("RGB"), [
            f"The image was converted from mode {mode} to RGB; what is transparent became white."
        ]
    return image.convert("RGB"), [f"The image was converted from mode {mode} to RGB."]


# ---- cutting -------------------------------------------------------------------------------------------------------


def _grid(values: Tensor, config: Any, *, pixels: bool) -> Grid:
    """The rows and columns of the units, and those of the model's own patches, as far as its config says."""
    height, width = values.shape[-2:]
    tall, wide = _patch(config)
    patches = (height // tall, width // wide) if tall and wide else None
    if pixels:
        if height * width > MOST_UNITS:
            raise UsageError(
                f"At most {MOST_UNITS:,} pixels can be units; this model reads {height * width:,}. Use patches."
            )
        return Grid(rows=height, columns=width, patches=patches)
    rows, columns = patches or (max(1, height // BLOCK), max(1, width // BLOCK))
    return Grid(rows=rows, columns=columns, patches=patches)


def _patch(config: Any) -> tuple[int, int]:
    """The height and width of the patches that a config speaks of, or 0."""
    inner = getattr(config, "vision_config", None) or config
    size = getattr(inner, "patch_size", None)
    if isinstance(size, Sequence) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (int(size), int(size)) if isinstance(size, int) and size > 0 else (0, 0)


def _units(grid: Grid, height: int, width: int) -> tuple[Unit, ...]:
    tall, wide = height // grid.rows, width // grid.columns
    return tuple(
        Unit(
            index=row * grid.columns + column,
            text=f"row {row + 1}, column {column + 1}",
            stream=grid.stream,
            box=(column * wide, row * tall, (column + 1) * wide, (row + 1) * tall),
        )
        for row in range(grid.rows)
        for column in range(grid.columns)
    )


def _normalised(processor: Any) -> tuple[Any, Any]:
    """The mean and deviation of each channel that a processor takes out, [channels, 1, 1]."""
    mean, deviation = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if getattr(processor, "do_normalize", False) and mean is not None and deviation is not None:
        return np.reshape(mean, (-1, 1, 1)), np.reshape(deviation, (-1, 1, 1))
    return np.zeros((1, 1, 1)), np.ones((1, 1, 1))


def _range(processor: Any, values: Tensor) -> tuple[Tensor, Tensor] | None:
    """What black and white become, [1, channels, 1, 1]; None for a processor that scales in another way."""
    scaled, factor = getattr(processor, "do_rescale", True), getattr(processor, "rescale_factor", 1 / 255)
    if scaled and (abs(factor * 255 - 1) > 1e-6 or getattr(processor, "rescale_offset", False)):
        return None
    mean, deviation = _normalised(processor)
    ends = ((shade - mean) / deviation for shade in (0.0, 1.0 if scaled else 255.0))
    low, high = (torch.as_tensor(end, dtype=values.dtype, device=values.device)[None] for end in ends)
    return low, high


def _seen(values: Tensor, processor: Any) -> str:
    """The picture as the model saw it, as a PNG in a `data:` address: its normalisation undone."""
    from PIL import Image

    mean, deviation = _normalised(processor)
    shades = values.detach().float().cpu().numpy() * deviation + mean
    if not getattr(processor, "do_rescale", True):
        shades = shades / 255
    if shades.shape[0] not in (1, 3):
        shades = shades.mean(0, keepdims=True)
    filled = np.broadcast_to(shades, (3, *shades.shape[1:])).transpose(1, 2, 0)
    image = Image.fromarray((filled.clip(0, 1) * 255).round().astype(np.uint8))
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
