"""Results as tables: what a notebook shows, what goes to Arrow and pandas."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moesim.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Sequence[Mapping[str, Any]]


class Tabular(ABC):
    """What has `rows()`, equal keys in each, and `title()`: shown in a notebook, and taken to Arrow and pandas."""

    @abstractmethod
    def rows(self) -> Rows:
        """A row a number: its name, value and unit first."""

    @abstractmethod
    def title(self) -> str:
        """One line."""

    def said_with(self) -> Sequence[str]:
        """What has to be said beside the numbers."""
        return ()

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        import pyarrow as pa

        return pa.Table.from_pylist([dict(row) for row in self.rows()])

    def to_pandas(self) -> Any:
        """The rows as a data frame. Raises BadInput where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise BadInput("pandas is not installed", way_out="pip install pandas, or to_arrow()") from None
        return pd.DataFrame([dict(row) for row in self.rows()])

    def _repr_html_(self) -> str:
        """For notebooks: title, table, notes."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.said_with())
        return f"<p><b>{html.escape(self.title())}</b></p>{html_table(self.rows())}" + (
            f"<ul>{notes}</ul>" if notes else ""
        )


def html_table(rows: Rows) -> str:
    """Rows of equal keys -> a table; numbers to four digits."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(key)}</th>' for key in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(_cell(one))}</td>' for one in row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
