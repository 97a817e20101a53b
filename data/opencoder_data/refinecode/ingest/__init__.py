"""Stage 1: read directories, archives, git repositories, Parquet and JSONL into documents; list every file in the ledger."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from opencoder_data import address_space
from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import IngestConfig
from opencoder_data.refinecode.engine import Executor
from opencoder_data.refinecode.ingest import archives, git, plan, table_files, tree
from opencoder_data.refinecode.ingest.bounds import within_memory
from opencoder_data.refinecode.ingest.declared import decode_declared
from opencoder_data.refinecode.ingest.decode import decode
from opencoder_data.refinecode.ingest.raw_file import RawFile, printable_text
from opencoder_data.refinecode.languages import name_verdict
from opencoder_data.refinecode.run import Run, partition_writers, run_step
from opencoder_data.refinecode.schema import DOCUMENTS, LEDGER, doc_id, table_of

STAGE = "ingest"


def run(run: Run, executor: Executor) -> dict[str, float]:
    """Plan (once), then read each partition."""
    target = storage.join(run.directory(STAGE), "plan.json")
    if not storage.exists(target):
        count = 0
        for count, units in enumerate(plan.plan(run.inputs, run.config.ingest, run.config.layout, _skip_names(run)), 1):
            storage.write_json(storage.join(run.directory(STAGE), "plan", f"{count - 1:05d}.json"), units)
        storage.write_json(target, {"partitions": count})
    return run_step(run, executor, STAGE, "docs", read_partition, range(run.num_parts()), "ingest")


def _skip_names(run: Run) -> bool:
    return run.config.ingest.skip_unread and "preprocess" in run.config.stages


def read_partition(run: Run, part: int) -> dict[str, Any]:
    """Documents of one partition, and a ledger row for each file, read or rejected."""
    address_space.start_threads()
    units = storage.read_json(storage.join(run.directory(STAGE), "plan", f"{part:05d}.json"))
    config = run.config.ingest
    skip_names = _skip_names(run)
    limit = run.config.layout.batch_mb * 1e6
    with partition_writers(run, STAGE, part, DOCUMENTS, LEDGER) as writers:
        docs: list[dict[str, Any]] = []
        seen: list[dict[str, Any]] = []
        ids: set[str] = set()
        odd: Counter[str] = Counter()
        held = size = rejected = 0

        def flush() -> None:
            writers.keep(table_of(docs, DOCUMENTS))
            writers.drops.append(table_of(seen, LEDGER))
            docs.clear()
            seen.clear()

        for raw in _read(units, run):
            by_name = skip_names and raw.data is not None and not raw.language
            if by_name and (rule := name_verdict(raw.path.rsplit("/", 1)[-1])):
                raw.data, raw.rule, raw.detail = None, rule, "by name"
            doc, row = _document(raw, config.licence)
            if row["doc_id"] in ids:  # by construction there is none; if there were, the run would go on
                row["doc_id"] = doc_id(row["doc_id"], raw.path, len(ids))
                doc = doc and {**doc, "doc_id": row["doc_id"]}
            ids.add(row["doc_id"])
            odd.update(raw.odd)
            seen.append(row)
            size += row["size"]
            held += len(row["path"])
            if doc is None:
                rejected += 1
            else:
                docs.append(doc)
                held += len(doc["content"])
            if held > limit / 2 or len(seen) >= 20_000:
                flush()
                held = 0
        flush()
        counts = {"files": writers.drops.rows, "bytes": size, "kept": writers.docs.rows, "dropped": rejected}
        return {**counts, "odd_metadata": dict(sorted(odd.items()))} if odd else counts


def _read(units: list[plan.Unit], run: Run) -> Iterator[RawFile]:
    config = run.config.ingest
    for unit in units:
        source = unit["source"]
        yield from within_memory(_read_unit(unit, source, unit.get("key", source), config), config, source)


def _read_unit(unit: plan.Unit, source: str, key: str, config: IngestConfig) -> Iterator[RawFile]:
    """`key` is the source before it was made printable."""
    kind = unit["kind"]
    if kind == "files":
        yield from tree.read_files(unit["root"], unit["entries"], source, key, config)
    elif kind == "archive":
        yield from archives.read_archive(unit["url"], source, key, config)
    elif kind == "git":
        yield from git.read_git(unit["url"], source, key, unit["root"], config)
    elif kind == "parquet":
        groups = tuple(unit["groups"])
        yield from table_files.read_parquet(
            unit["url"], source, key, groups, unit["start"], config, unit.get("own", False)
        )
    elif kind == "arrow":
        yield from table_files.read_arrow(unit["url"], source, key, config)
    elif kind == "jsonl":
        yield from table_files.read_jsonl(unit["url"], source, key, config)
    else:
        path = unit.get("path", "")
        yield RawFile(
            source, "", printable_text(path), rule=unit["rule"], detail=unit["detail"], index=-1, key=(key, path)
        )


def _document(raw: RawFile, licence: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """(document or None, ledger row)."""
    identity = raw.doc_id or doc_id(*(raw.key or (raw.source, raw.path)), raw.index)
    text, encoding, sha = raw.text, raw.encoding, None
    if raw.data is not None:
        decoded = (decode_declared(raw.data, raw.declared_encoding) if raw.declared_encoding else None) or decode(
            raw.data
        )
        text, encoding = decoded.text, decoded.encoding
        raw.rule, raw.detail = decoded.rule, decoded.detail
        sha = hashlib.sha256(raw.data).hexdigest()
    if text is not None and "\0" in text:
        text, raw.rule, raw.detail = None, "binary", "NUL characters"
    if text is not None and not text:
        text, raw.rule = None, "empty"
    row = {
        "doc_id": identity, "source": raw.source, "repo": raw.repo, "path": raw.path, "size": raw.size,
        "language": raw.language, "doc_type": raw.doc_type, "status": "kept" if text is not None else "dropped",
    }  # fmt: skip
    if raw.odd:
        note = f"not readable: {', '.join(sorted(set(raw.odd)))}"
        raw.detail = f"{raw.detail}; {note}" if raw.detail else note
        row["detail"] = note
    if text is None:
        return None, {**row, "stage": STAGE, "rule": raw.rule, "detail": raw.detail or None}
    if sha is None:
        sha = _sum(text, encoding, raw.stated_sha256)
    doc = {
        **row, "content": text, "sha256": sha, "stars": raw.stars, "commit_time": raw.commit_time,
        "time_source": raw.time_source, "licence": raw.licence or licence or None, "encoding": encoding,
    }  # fmt: skip
    for name in ("status", "detail"):
        doc.pop(name, None)
    return doc, row


def _sum(text: str, encoding: str, stated: str | None) -> str:
    """SHA-256 of a text that a table brings. What the table states counts only where it is the sum of the file's bytes, the
    text in `encoding`; else it is that of the text in UTF-8."""
    own = hashlib.sha256(text.encode("utf-8")).hexdigest()
    if stated is None or stated == own:
        return own
    names = {"utf-16": ("utf-16-le", "utf-16-be"), "utf-32": ("utf-32-le", "utf-32-be")}.get(encoding, (encoding,))
    mark = "\ufeff" if len(names) > 1 else ""
    for name in names:
        with contextlib.suppress(UnicodeError, LookupError, TypeError):
            if hashlib.sha256((mark + text).encode(name)).hexdigest() == stated:
                return stated
    return own


__all__ = ["STAGE", "read_partition", "run"]
