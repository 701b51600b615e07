"""Published numbers: the file agrees with the tables of the papers, and mistakes in it are reported."""

import re

import pytest

from leaderboard.reported import FILE, reported
from victims.errors import InputError


def value(table, method, metric, **place):
    (found,) = [
        entry
        for entry in reported()
        if (entry.table, entry.method) == (table, method) and place.items() <= entry.setting.items()
    ]
    return found.values[metric]


@pytest.mark.parametrize(
    ("table", "method", "metric", "place", "expected"),
    [
        ("gifd-table1", "IG", "psnr", {"batch_size": 1}, 19.08),
        ("gifd-table1", "GGL", "psnr", {"batch_size": 2}, 13.35),
        ("gifd-table1", "GIFD", "psnr", {"batch_size": 8}, 12.74),
        ("gifd-table2", "GIAS", "seconds", {}, 1360.8),
        ("gifd-table2", "GIFD", "cost", {}, 0.006865),
        ("gifd-table3a", "GIFD", "lpips_alex", {}, 0.1559),
        ("gifd-table3a", "GIFD-f", "psnr", {"data": "imagenet"}, 18.6457),
        ("gifd-table3b", "GIFD-e", "psnr", {"data": "ffhq"}, 20.5839),
        ("gifd-table4", "GIAS", "psnr", {"victim": "convnet64"}, 24.17),
        ("gifd-table4", "GGL", "psnr", {"victim": "torchvision:densenet121"}, 14.35),
        ("gias-table1", "GI-x", "lpips_alex", {}, 0.4376),
        ("gias-table1", "GI-z/w+BN", "psnr", {"bn": "exact"}, 16.31),
        ("ci-net-table4", "CI-Net", "psnr", {"batch_size": 64}, 33.72),
        ("ci-net-table4", "GIAS", "fsim", {}, 0.94),
        ("ci-net-table5", "CI-Net", "psnr", {"batch_size": 256}, 34.11),
        ("igims-table1", "IGIMS", "psnr", {"data": "cifar10", "size": 32}, 26.33),
        ("igims-table1", "IG", "psnr", {"data": "imagenet", "size": 224}, 14.06),
        ("igims-table2-cifar100", "ALR", "label_counts", {"batch_size": 256}, 0.926),
        ("igims-table2-imagenet", "ZLR", "label_counts", {"batch_size": 4}, 0.750),
        ("igims-table3", "GIAS", "psnr", {"data": "imagenet"}, 13.14),
        ("igims-figure7", "IG+AGA", "time_ratio", {"match": "aga"}, 4),
    ],
)
def test_numbers_are_those_of_the_papers(table, method, metric, place, expected):
    digits = len(str(expected).partition(".")[2])
    assert round(value(table, method, metric, **place), digits) == expected


@pytest.mark.parametrize(
    ("table", "size"),
    [
        ("gifd-table1", 4 * 5 - 2),
        ("gifd-table2", 3),
        ("gifd-table3a", 4),
        ("gifd-table3b", 4),
        ("gifd-table4", 5 * 5),
        ("gias-table1", 6),
        ("ci-net-table4", 2),
        ("ci-net-table5", 1),
        ("igims-table1", 3 * 3),
        ("igims-table2-cifar100", 2 * 5),
        ("igims-table2-imagenet", 2 * 5),
        ("igims-table3", 3 * 2),
        ("igims-figure7", 1),
    ],
)
def test_tables_are_whole(table, size):
    assert sum(entry.table == table for entry in reported()) == size


def test_the_victim_of_table_4_is_the_victim_of_table_3():
    """GIFD on ResNet-18 is in table 4 and in table 3 (a): one experiment, printed twice."""
    assert value("gifd-table4", "GIFD", "psnr", victim="resnet18") == value("gifd-table3a", "GIFD", "psnr")


def test_error_and_ratio_belong_together():
    """A mean PSNR is never below the PSNR of the mean error (Jensen); a typing error in either number breaks this.

    One pair in a paper breaks it: GIAS on ImageNet has 15.86 dB, and 0.0246, which is 16.09 dB.
    """
    both = [entry for entry in reported() if {"psnr", "mse"} <= entry.values.keys()]
    assert len(both) == 2 * 4 + 9 + 6
    broken = [entry for entry in both if 10 ** (-entry.values["psnr"] / 10) > entry.values["mse"]]
    assert [(entry.table, entry.method, entry.setting["data"]) for entry in broken] == [
        ("igims-table1", "GIAS", "imagenet")
    ]


def test_methods_name_the_knowledge_that_they_need():
    for entry in reported():
        if entry.method.endswith("+BN"):
            assert entry.setting["bn"] == "exact"
        assert entry.values.keys() & {"psnr", "ssim", "fsim", "mse", "iip", "label_counts", "time_ratio"}


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ((r"psnr: 13\.78", "psnr: much"), "table gias-table1: the psnr of GI-x is 'much', which is not a number"),
        ((r"psnr: 13\.78", "psnr: .nan"), "not a number"),
        ((r"psnr: 13\.78", "psrn: 13.78"), "the metric psrn, which is none of cost, fsim"),
        (("  by: victim", "  per: victim"), "table gifd-table4: per is missing or not known"),
        ((r"IG: \{psnr: \{1: 19\.07606", "GG: {psnr: {1: 19.07606"), "method GG has no attack"),
        (("batch_size: 4, victim: resnet18", "batch: 4, victim: resnet18"), "batch is not a field of a row"),
        (("  GI-z: {psnr: 14.27.*", "  GI-z: {}"), "GI-z has no values by metric"),
        (("by: data", "by: [data]"), "by is not a str"),
        (("\nmethods:", "\nways:"), "does not hold `metrics`, `methods` and `tables`"),
        (("\nmethods:", "\nmethods: {"), "is not readable YAML"),
    ],
)
def test_a_bad_file_is_reported_in_one_line(change, warning, tmp_path):
    file = tmp_path / "reported.yaml"
    text, count = re.subn(*change, FILE.read_text(), count=1)
    assert count == 1
    file.write_text(text)
    with pytest.raises(InputError) as error:
        reported(file)
    assert warning in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_reported_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.yaml is not readable YAML"):
        reported(tmp_path / "nothing.yaml")
