"""A W&B server on this machine: takes what `wandb sync` and `wandb.init` send, and serves it to the public API.

It answers the requests that the client makes for what the suite does, as recorded from wandb 0.31; any other one is
refused, and stands in `refused`. So tests read what W&B's own reader makes of the files of an offline run.
"""

import base64
import gzip
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

ENTITY, BEGUN = "me", "2026-01-01T00:00:00"
PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}


class Server(ThreadingHTTPServer):
    """
    Attributes:
        runs: what was said of each run when it began or went on, by its id.
        artifacts: in the order in which they were made; `files` are their paths in `stored`, by name.
        stored: the content of uploaded files, by path.
        streams: the lines that were appended to the files of each run, by run and name of the file.
        refused: requests that this server does not know.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.stored: dict[str, bytes] = {}
        self.streams: dict[tuple[str, str], list[str]] = {}
        self.refused: list[str] = []

    def config(self, run: str) -> dict[str, Any]:
        return {key: each["value"] for key, each in json.loads(self.runs[run]["config"]).items()}

    def history(self, run: str) -> list[dict[str, Any]]:
        """One dictionary for each call of `log`."""
        return [json.loads(line) for line in self.streams[run, "wandb-history.jsonl"]]

    def summary(self, run: str) -> dict[str, Any]:
        return json.loads(self.streams[run, "wandb-summary.json"][-1])

    def versions(self, kind: str) -> list[dict[str, bytes]]:
        """The files of every artifact of a type, by their names in it."""
        found = [each for each in self.artifacts if each["artifactTypeName"] == kind]
        return [{name: self.stored[path] for name, path in each["files"].items()} for each in found]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            found = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(found) if self.headers.get("Content-Encoding") == "gzip" else found

    def answer(self, found: Any, code: int = 200) -> None:
        text = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        found = self.server.stored.get(self.path)
        self.answer(found or b"", 404 if found is None else 200)

    def do_PUT(self) -> None:
        self.server.stored[self.path] = self.content()
        self.answer(b"")

    def do_POST(self) -> None:
        content = self.content()
        if self.path.endswith("/file_stream"):
            run = self.path.split("/")[-2]
            for name, added in json.loads(content).get("files", {}).items():
                self.server.streams.setdefault((run, name), []).extend(added["content"])
            self.answer({})
        elif self.path == "/graphql":
            asked = json.loads(content)
            name = re.search(r"(?:query|mutation) (\w+)", asked["query"])[1]
            method = getattr(self, f"on_{name}", None)
            if method is None:
                self.server.refused.append(asked["query"])
                self.answer({"errors": [{"message": f"unknown operation {name}"}]}, 400)
            else:
                self.answer({"data": method(asked.get("variables") or {})})
        else:
            self.answer(b"")  # telemetry

    # Who asks

    def on_ServerFeaturesQuery(self, asked: dict) -> dict:
        return {"serverInfo": {"features": []}}

    def on_Viewer(self, asked: dict) -> dict:
        return {"viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def on_GetDefaultEntity(self, asked: dict) -> dict:
        return {"viewer": {"id": "u", "entity": ENTITY}}

    def on_OrganizationCoreWeaveOrganizationID(self, asked: dict) -> dict:
        return {"entity": {"organization": None}}

    # Runs

    def on_RunResumeStatus(self, asked: dict) -> dict:
        return {"model": {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": ENTITY}, "bucket": None}}

    def on_UpsertBucket(self, asked: dict) -> dict:
        run = self.server.runs.setdefault(asked["name"], {})
        run.update({key: value for key, value in asked.items() if value is not None})
        project = {"id": "p", "name": run["project"], "entity": {"id": "e", "name": ENTITY}}
        bucket = {"id": asked["name"], "name": asked["name"], "displayName": run.get("displayName"), "project": project}
        bucket |= {"description": None, "config": run.get("config"), "sweepName": None, "historyLineCount": 0}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def on_CreateRunFiles(self, asked: dict) -> dict:
        files = [
            {"name": name, "uploadUrl": f"{self.server.url}/runs/{asked['run']}/{name}"} for name in asked["files"]
        ]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def on_Runs(self, asked: dict) -> dict:
        group = json.loads(asked["filters"]).get("group")
        found = [name for name, run in self.server.runs.items() if group in (None, run["groupName"])]
        if not any(run["project"] == asked["project"] for run in self.server.runs.values()):
            return {"project": None}
        edges = [{"node": self.run_of(name), "cursor": name} for name in found]
        return {
            "project": {
                "internalId": "1",
                "runCount": len(edges),
                "readOnly": False,
                "runs": {"edges": edges, "pageInfo": PAGE},
            }
        }

    def run_of(self, name: str) -> dict:
        run = self.server.runs[name]
        about = {"displayName": run["displayName"], "group": run["groupName"], "jobType": run["jobType"]}
        about |= {"tags": run.get("tags", []), "state": "finished", "createdAt": BEGUN, "heartbeatAt": BEGUN}
        about |= dict.fromkeys(("description", "notes", "sweepName", "commit"))
        user = {"name": ENTITY, "username": ENTITY}
        return about | {
            "id": name,
            "name": name,
            "projectId": "1",
            "readOnly": False,
            "historyLineCount": 0,
            "user": user,
        }

    # Artifacts: what was made is numbered; a file lies at the MD5 of its content

    def on_CreateArtifact(self, asked: dict) -> dict:
        number = str(len(self.server.artifacts))
        self.server.artifacts.append(asked["input"] | {"files": {}})
        made = {"id": number, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def on_ArtifactType(self, asked: dict) -> dict:
        return {"project": {"artifact": None}}  # there is none of this name yet

    def on_CreateArtifactManifest(self, asked: dict) -> dict:
        url = f"{self.server.url}/manifests/{asked['artifactID']}"
        file = {"id": "f", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": asked["artifactID"], "file": file}}}

    def on_CreateArtifactFiles(self, asked: dict) -> dict:
        edges = []
        for file in asked["input"]["artifactFiles"]:
            path = f"/content/{base64.b64decode(file['md5']).hex()}"
            self.server.artifacts[int(file["artifactID"])]["files"][file["name"]] = path
            place = {"storagePath": path, "uploadUrl": self.server.url + path, "uploadHeaders": []}
            edges.append({"node": place | {"uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, asked: dict) -> dict:
        digest = self.server.artifacts[int(asked["artifactID"])]["digest"]
        return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": digest}}}

    def on_RunOutputArtifacts(self, asked: dict) -> dict:
        edges = [
            {"node": self.artifact_of(number)}
            for number, made in enumerate(self.server.artifacts)
            if made["runName"] == asked["run"]
        ]
        return {"project": {"run": {"artifacts": {"totalCount": len(edges), "pageInfo": PAGE, "edges": edges}}}}

    def artifact_of(self, number: int) -> dict:
        made = self.server.artifacts[number]
        alike = [each["artifactCollectionName"] for each in self.server.artifacts[:number]]
        project = {"id": "1", "internalId": "1", "name": made["projectName"], "entity": {"name": ENTITY}}
        sequence = {"__typename": "ArtifactSequence", "name": made["artifactCollectionName"], "project": project}
        about = {"__typename": "Artifact", "id": str(number), "artifactSequence": sequence, "digest": made["digest"]}
        about |= {"versionIndex": alike.count(made["artifactCollectionName"]), "state": "COMMITTED", "size": 1}
        about |= {"artifactType": {"name": made["artifactTypeName"]}, "fileCount": len(made["files"]), "tags": []}
        about |= {
            "metadata": "{}",
            "ttlDurationSeconds": -2,
            "ttlIsInherited": False,
            "createdAt": "2026-01-01T00:00:00",
        }
        return about | {"aliases": [], "commitHash": "c"} | dict.fromkeys(("description", "historyStep", "updatedAt"))

    def on_FetchArtifactManifest(self, asked: dict) -> dict:
        return {"artifact": {"currentManifest": {"file": {"directUrl": f"{self.server.url}/manifests/{asked['id']}"}}}}

    def on_GetArtifactMembershipFileUrls(self, asked: dict) -> dict:
        made = [each for each in self.server.artifacts if each["artifactCollectionName"] == asked["collection"]]
        files = made[int(asked["alias"].removeprefix("v"))]["files"]
        edges = [
            {"node": {"__typename": "File", "name": name, "directUrl": self.server.url + path}}
            for name, path in files.items()
        ]
        member = {"files": {"pageInfo": PAGE, "edges": edges}}
        return {
            "project": {"artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": member}},
        }


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    """A server without runs, whose address and key the client takes from the environment.

    Args:
        home: where the client keeps what it remembers.
    """
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "HOME": str(home), "WANDB_DIR": str(home)}
        for name, value in {**own, "WANDB_DATA_DIR": "restored at the end"}.items():
            patch.setenv(name, value)
        patch.delenv("WANDB_PROJECT", raising=False)
        wandb.teardown()  # a client that has begun keeps the address and the key that it began with
        yield server
        wandb.teardown()
        server.shutdown()
        assert server.refused == [], server.refused


def sync(folder: Path) -> None:
    """Send the offline runs in W&B's folder of a run, as a user does."""
    wandb.teardown()  # waits for the process that writes the files
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "Finished syncing" in done.stderr, done.stderr


def read_table(files: dict[str, bytes], name: str) -> list[dict[str, Any]]:
    """The lines of a table in the files of an artifact; a picture is its bytes."""
    table = json.loads(files[f"{name}.table.json"])
    lines = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
    return [
        {key: files[cell["path"]] if isinstance(cell, dict) else cell for key, cell in line.items()} for line in lines
    ]
