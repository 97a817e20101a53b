"""Stage 8: what a run did, as one HTML page, Markdown and JSON (`python -m opencoder_data.refinecode.report --run DIR`)."""
