"""What a person's own files hold, before any image is decoded: from a path to parts and classes.

| file | what lives there |
|---|---|
| `listing.py` | `Listing` and `Encoded`: what the others make and take |
| `named_path.py` | which of them a path is for |
| `tables.py`, `text_tables.py`, `columns.py`, `arrow_columns.py` | tables of files and labels |
| `folders.py`, `file_images.py` | folders named after classes; images in files of their own |
| `parquet.py`, `parquet_images.py` | Parquet files with the images inside |
| `parts.py`, `natural.py`, `duplicates.py` | which image goes where, and its class as a number |
"""
