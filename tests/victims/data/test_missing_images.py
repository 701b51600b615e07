"""A data set without images says where they go: pictures that are put there are found."""

import re
from pathlib import Path

import pytest
from PIL import Image

from benchmark.registry import open_data
from victims.errors import InputError


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet", "pacs", "pacs:sketch"])
def test_pictures_are_found_where_the_message_says_that_they_go(name, tmp_path):
    with pytest.raises(InputError) as error:
        open_data(name, "test", 16, tmp_path)
    folder, example = re.search(r" in (.*); put them there, such as (.*), or fix --data-dir", str(error.value)).groups()
    path = Path(folder) / example
    path.parent.mkdir(parents=True)
    for number in range(40):  # of which a hash leaves some to the split
        Image.new("RGB", (16, 16)).save(path.with_stem(f"{number:05d}"))
    assert len(open_data(name, "test", 16, tmp_path)) > 0
