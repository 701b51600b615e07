"""The values of options that have a fixed set of them. No heavy import, so that a command line starts fast."""

from typing import Literal

Resize = Literal["shorter", "gifd", "gias", "ggl"]
"""How images are resized: the shorter side is resampled, then the center is cut out.

- `shorter`: to the size, bicubic.
- `gifd`: to the size, bilinear; GIFD's code, and GIAS's for faces.
- `gias`: to 9/8 of the size (36 for 32, 72 for 64, 144 for 128), bilinear; GIAS's code for ImageNet.
- `ggl`: to 8/7 of the size (256 for 224), bilinear; GGL's code, and what classifiers of ImageNet are tested on.

All are torchvision's on Pillow images, and widen their filter where they shrink (antialiasing).
"""

Mode = Literal["eval", "train", "as_is"]
"""The mode in which a client computes its update: of all layers, or the one in which each layer of the model is."""

TRAINING: dict[Mode, bool | None] = {"eval": False, "train": True, "as_is": None}
"""What `nn.Module.train` is given; None leaves every layer as it is."""

Level = Literal["none", "running", "recovered", "exact"]
"""Which batch-norm statistics the attacker has, see `victims.client.known_statistics`."""

Match = Literal["aga", "fa", "sme"]
"""How an update after local training is matched.

- `aga`: as if the mean gradient of its steps were one gradient of the whole batch at theta_0 (average gradient
  approximation; IGIMS, eqs. 12 and 13). It costs as much as FedSGD, independent of the local steps.
- `fa`: by the mean gradient of the same training on the dummy batch, differentiable through all of its steps
  (Geiping et al., 2020). Clients and mini-batches are cut from the dummy batch in its order. If labels are given, that
  is their sorted order and not the clients' order, which the attacker does not know.
- `sme`: as `aga`, but by the gradient at a point between the weights before and after training, which is searched
  together with the images (surrogate model extension; Zhu et al., 2023). See `attacks.engine.surrogate_model`.
"""

Group = int | Literal["auto"]
"""How many tasks are attacked together, see `benchmark.tasks.batches.group_size`."""

Amp = Literal["none", "bf16", "fp16"]
"""Mixed precision of a client, see `victims.amp`."""

Compile = Literal["auto", "on", "off"]
"""Whether stages are compiled: on a CPU those long enough to save time (auto), all (on), or none (off)."""
