"""The tables of README.md beside this file: every column with its type and meaning, from the schema.

python -m ssl_runner.results.columns    # after a change of the schema: write them again
"""

from pathlib import Path

import pyarrow as pa

from ssl_runner.results.schema import EPOCHS, TRIALS

PAGE = Path(__file__).with_name("README.md")


def with_tables(page: str) -> str:
    """The page with its tables as the schema has them; the text above the first one is kept."""
    text, heading, _ = page.partition("\n## trials\n")
    assert heading, "the page must have a heading for the trials"
    return f"{text}{heading}\n{_table(TRIALS)}\n## epochs\n\n{_table(EPOCHS)}"


def _table(schema: pa.Schema) -> str:
    rows = [
        f"| `{field.name}` | {field.type} | {field.metadata[b'meaning'].decode()} |\n"
        for field in schema
    ]
    return "".join(["| column | type | meaning |\n", "|---|---|---|\n", *rows])


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
