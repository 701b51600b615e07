"""What an offline W&B run has kept: reads its `.wandb` file, LevelDB's log format around protobuf records."""

import json
import struct
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # checksum, length, and whole / first / middle / last


def records(path: Path) -> list[Record]:
    """Of the finished offline run whose folder is `path`."""
    wandb.teardown()  # waits for the process that writes the file
    (file,) = path.glob("run-*.wandb")
    content, place, parts, found = file.read_bytes(), 7, b"", []  # W&B's own header comes first
    while place + HEADER.size <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER.size:
            place += left
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        place += HEADER.size
        parts += content[place : place + length]
        place += length
        if kind in (1, 4):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def config(kept: list[Record]) -> dict:
    runs = [record.run for record in kept if record.HasField("run")]
    return {item.key: json.loads(item.value_json) for item in runs[-1].config.update}


def history(kept: list[Record]) -> list[dict]:
    """One dictionary for each call of `log`."""
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in kept
        if record.HasField("history")
    ]


def summary(kept: list[Record]) -> dict:
    items = [item for record in kept if record.HasField("summary") for item in record.summary.update]
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def artifacts(kept: list[Record], kind: str) -> list[dict[str, Path]]:
    """For every artifact of a type, the files that a sync would send, by their names in it."""
    logged = [record.artifact for record in kept if record.HasField("artifact")]
    return [
        {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
        for artifact in logged
        if artifact.type == kind
    ]
