"""PACS (Li et al., 2017) in folders: `<data_dir>/pacs/<domain>/<class>/*`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from victims.choices import Resize
from victims.data.files import ImageFiles, by_class
from victims.data.imagenet import ImageNet
from victims.errors import InputError


class PACS(ImageFiles):
    """PACS: seven classes as photographs, paintings, cartoons and sketches, split by hash."""

    name = "pacs"
    domains = ("art_painting", "cartoon", "photo", "sketch")
    classes: Sequence[str] = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    folders: Mapping[str, int] = {name: label for label, name in enumerate(classes)}
    mean = ImageNet.mean  # as in GIFD's code, where generator and victim are trained on ImageNet
    std = ImageNet.std

    def __init__(
        self,
        domain: str = "",
        *,
        split: str = "test",
        size: int = 64,
        data_dir: Path = Path("data"),
        resize: Resize = "shorter",
    ) -> None:
        """
        Args:
            domain: art_painting, cartoon, photo or sketch; by default all.
            split: train, tune or test.
            size: side of the images in pixels.
            data_dir: the folder that holds `pacs/`.
            resize: how images are resized.

        Raises:
            InputError: the domain, the split or the rule is unknown, the size below 8, or there are no images.
        """
        super().__init__(split=split, size=size, resize=resize)
        if domain and domain not in self.domains:
            raise InputError(f"{self.name} has no domain '{domain}'; it has {', '.join(self.domains)}.")
        root = data_dir / "pacs"
        self.example = "dog/1.jpg" if domain else "photo/dog/1.jpg"
        found: dict[Path, int] = {}
        for name in (domain,) if domain else self.domains:
            found |= by_class(self.name, root / name, self.folders)
        ids = [f"{path.parent.parent.name}-{path.parent.name}-{path.name}" for path in found]
        self.take(list(found), ids, list(found.values()), root=root / domain, splits=self.splits)
