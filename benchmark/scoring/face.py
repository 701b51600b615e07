"""Whether two pictures show the same person: the distance of dlib's face descriptors (King 2017)."""

import json
import shlex
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, max_pool2d, pad

from victims.errors import InputError

SAME = 0.6  # descriptors of one person are nearer than this: dlib's threshold
LEAST = 32  # pixels: the side of the pictures from which on a face is told from another, see `Face`
SIDE = 150  # pixels of the face that the descriptor takes
MEAN = (122.782, 117.001, 104.298)
COMMAND = (  # the files of this release are those that the tests were made with
    "npm pack @vladmandic/face-api@1.7.15 && mkdir -p {0} && tar xzf vladmandic-face-api-1.7.15.tgz -C {0} "
    "--strip-components=2 package/model/face_recognition_model.bin "
    "package/model/face_recognition_model-weights_manifest.json"
)
WIDTH, LEFT, TOP = 0.65, 0.175, 0.255  # the face in an aligned picture, as parts of its side
BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)


class Face:
    """The descriptor, a residual network of 29 convolutions.

    It was trained on aligned faces that fill the picture. FFHQ's are aligned too, but show hair and shoulders: of 12
    whole FFHQ pictures, 58 % of the pairs of different people are within 0.6 (at 64 pixels 80 %), and of square crops
    around the center as many. So the part that dlib would cut out is taken, 65 % of the side around 58 % of the height:
    then none of the 66 pairs is (from 48 pixels on), and mirrored faces stay below 0.37.

    Smaller pictures are alike: of 32 pixels 8 % of the pairs are within 0.6, and a gray picture or noise is of 8 % of
    the people, the mean of the twelve pictures of 17 %. Of 16 pixels 52 % of the pairs are, so below 32 none are taken.
    """

    def __init__(self, weights: dict[str, Tensor] | None, reason: str = "", fix: str = "") -> None:
        """
        Args:
            weights: by their names in the manifest, filters as (out, in, height, width); None where there are none.
            reason: why there are none, in one line.
            fix: the command that gets them.
        """
        self._weights, self.reason, self.fix = weights, reason, fix

    @classmethod
    def find(cls, weights_dir: Path) -> "Face":
        """From `weights_dir/metrics/face_recognition_model.bin` and its manifest.

        Raises:
            InputError: they do not hold these weights.
        """
        path = weights_dir / "metrics" / "face_recognition_model.bin"
        manifest = path.with_name("face_recognition_model-weights_manifest.json")
        if absent := [str(file) for file in (path, manifest) if not file.is_file()]:
            return cls(None, f"there is no {absent[0]}", COMMAND.format(shlex.quote(str(path.parent))))
        try:
            face = cls(dequantized(path.read_bytes(), json.loads(manifest.read_text())[0]["weights"]))
            face.descriptors(torch.zeros(1, 3, 8, 8))
            return face
        except Exception as error:  # a broken or foreign file fails in many ways
            raise InputError(
                f"{path} and its manifest do not hold the weights of the face descriptor ({type(error).__name__}): "
                "replace them, or remove them to go without same_face."
            ) from error

    @property
    def available(self) -> bool:
        return self._weights is not None

    def takes(self, pictures: Tensor) -> bool:
        """Whether the weights are available, and pictures (B, C, H, W) are gray or in three colors and large enough."""
        return self.available and pictures.shape[1] in (1, 3) and min(pictures.shape[-2:]) >= LEAST

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of the faces in aligned pictures, (B, C, H, W) in [0, 1] twice -> (B,).

        One channel counts as gray.

        Raises:
            RuntimeError: the weights are not available.
        """
        return (self.descriptors(face_of(a)) - self.descriptors(face_of(b))).norm(dim=1)

    def descriptors(self, faces: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, 128)."""
        if self._weights is None:
            raise RuntimeError(self.reason)
        x = interpolate(faces.expand(-1, 3, -1, -1), size=(SIDE, SIDE), mode="bilinear", antialias=True)
        x = x - x.new_tensor(MEAN)[:, None, None] / 255
        x = max_pool2d(self._convolved(x, "conv32_down", down=True).relu(), 3, 2)
        for name in BLOCKS:
            x = self._block(x, name, down="down" in name)
        return x.mean((2, 3)) @ self._weights["fc"]

    def _block(self, x: Tensor, name: str, *, down: bool) -> Tensor:
        """A residual block; where it halves the size, the smaller of input and output is filled up with zeros."""
        y = self._convolved(self._convolved(x, f"{name}/conv1", down=down).relu(), f"{name}/conv2")
        x = avg_pool2d(x, 2) if down else x
        sizes = [max(sizes) for sizes in zip(x.shape, y.shape, strict=True)]
        return (filled(x, sizes) + filled(y, sizes)).relu()

    def _convolved(self, x: Tensor, name: str, *, down: bool = False) -> Tensor:
        assert self._weights is not None
        filters, bias = self._weights[f"{name}/conv/filters"], self._weights[f"{name}/conv/bias"]
        x = conv2d(x, filters, bias, stride=2 if down else 1, padding=0 if down else 1)
        scale, shift = self._weights[f"{name}/scale/weights"], self._weights[f"{name}/scale/biases"]
        return x * scale[:, None, None] + shift[:, None, None]


def face_of(pictures: Tensor) -> Tensor:
    """The part of aligned pictures (B, C, S, S) that dlib would cut out of them."""
    side = pictures.shape[-1]
    width, left, top = (round(part * side) for part in (WIDTH, LEFT, TOP))
    return pictures[..., top : top + width, left : left + width]


def filled(x: Tensor, sizes: list[int]) -> Tensor:
    """With zeros behind its channels, rows and columns, up to these sizes."""
    channels, rows, columns = (size - own for size, own in zip(sizes[1:], x.shape[1:], strict=True))
    return pad(x, (0, columns, 0, rows, 0, channels))


def dequantized(content: bytes, entries: list[dict]) -> dict[str, Tensor]:
    """The tensors of a file, one after another: bytes q stand for q * scale + min, others are float32.

    Raises:
        ValueError: the file is shorter or longer.
    """
    tensors, place = {}, 0
    for entry in entries:
        count, quantization = prod(entry["shape"]), entry.get("quantization")
        if quantization:
            values = np.frombuffer(content, np.uint8, count, place).astype(np.float32)
            values = values * np.float32(quantization["scale"]) + np.float32(quantization["min"])
        else:
            values = np.frombuffer(content, "<f4", count, place).copy()
        place += count if quantization else 4 * count
        tensor = torch.from_numpy(values).reshape(entry["shape"])
        tensors[entry["name"]] = tensor.permute(3, 2, 0, 1).contiguous() if tensor.dim() == 4 else tensor
    if place != len(content):
        raise ValueError("the file is longer than its manifest says")
    return tensors
