"""Images decoded once, in parallel, into a cache that all processes of a machine map.

| file | what lives there |
|---|---|
| `load_files.py` | a data set from a listing |
| `make.py`, `pool.py`, `decode.py` | an entry of the cache, made by several processes, image by image |
| `store.py`, `mapped.py` | the cache; images mapped from a file |
"""
