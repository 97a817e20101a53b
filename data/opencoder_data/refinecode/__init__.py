"""RefineCode: from raw files to weighted, filtered, explained source text. Run `python -m opencoder_data.refinecode`."""

from opencoder_data import address_space
from opencoder_data.numba_cache import give_numba_a_cache

address_space.fit()
give_numba_a_cache()
