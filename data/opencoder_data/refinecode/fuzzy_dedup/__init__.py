"""Stage 4: near duplicates by sketches, banding, optional verification and connected components.

Steps, each over partitions or buckets, none shuffling text:

1. ``keys``: shingles -> sketch -> band keys (16 bytes and more per band and unit), bucketed by key;
2. ``pairs``: units that share a key, bucket by bucket;
3. ``shingles`` and ``verify`` (if `verify`): exact Jaccard of each candidate pair, bucketed by component;
4. ``ranks``: stars, times and paths of the units in components;
5. on the driver: components and the copy of each that stays (`keep_rule`), then ``docs``: partitions without the copies.
"""
