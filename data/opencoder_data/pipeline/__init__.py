"""The engine under every data pipeline: stages over numbered partitions that can be killed and resumed.

| module | what it holds |
|---|---|
| `stage` | what a stage is (`Stage`), a pipeline (`Pipeline`), what a stage decides about a batch (`Outcome`) |
| `engine` | `run_pipeline`: runs the stages, resumes, writes the ledger |
| `run` | places and digests of a run on disk; `Steps`, with which a stage does its work; `map_documents` |
| `schema` | core columns of a document, and the ledger |
| `source` | `ReadDocuments`: a first stage for Parquet, JSON lines and text files |
| `storage`, `shuffle`, `ledger`, `lock`, `executors`, `config` | files, exchange of keys, accounts, one run at a time, processes or Ray, options |

How to write a pipeline: docs/guides/add-a-pipeline.md.
"""
