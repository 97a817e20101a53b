"""RefineCode: from raw files to weighted, filtered, explained source text. Run `python -m opencoder_data.refinecode`."""
