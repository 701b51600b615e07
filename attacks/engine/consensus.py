"""The consensus of the restarts of one task: the center of GradInversion's group consistency."""

import numpy as np
import torch
from skimage.registration import optical_flow_ilk
from skimage.transform import warp
from torch import Tensor


def mean_consensus(images: Tensor) -> Tensor:
    """The pixel-wise mean over the restarts: (n, B, C, H, W) -> (B, C, H, W) ("lazy" in Yin et al., 2021)."""
    return images.mean(0)


def registered_consensus(images: Tensor) -> Tensor:
    """The mean of the restarts' images after each is registered to their mean: (n, B, C, H, W) -> (B, C, H, W).

    Yin et al. register with RANSAC-flow, a trained network; here it is a dense flow of the gray images (iterative
    Lucas-Kanade), which needs no weights.
    """
    reference = mean_consensus(images)
    return torch.stack(
        [torch.stack([register(x, center) for x in images[:, b]]).mean(0) for b, center in enumerate(reference)]
    )


def register(image: Tensor, reference: Tensor) -> Tensor:
    """The image (C, H, W), warped by the flow that registers it to the reference; same shape."""
    moving, fixed = (x.mean(0).numpy(force=True).astype(np.float64) for x in (image, reference))
    flow = optical_flow_ilk(fixed, moving, radius=5)
    rows, columns = np.indices(fixed.shape)
    where = np.stack([rows + flow[0], columns + flow[1]])
    moved = [warp(channel, where, mode="edge") for channel in image.numpy(force=True).astype(np.float64)]
    return torch.as_tensor(np.stack(moved)).to(image)
