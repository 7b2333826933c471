"""Which cells of the tables that one release tells together are told."""

from collections.abc import Mapping, Sequence

import numpy as np

from policies.refusals import RefusalCode
from station.egress.analyses.exact import ExactTable
from station.egress.suppression.lines import has_small, hide_line
from station.egress.suppression.rules import Hidden, HidingRules


def hide(tables: Sequence[ExactTable], rules: HidingRules) -> Mapping[str, Hidden]:
    """Return what of each table may be told, by its key.

    Args:
        tables: all that one release tells of one split.
        rules: the policy's.
    """
    columns = [{dimension.column for dimension in table.dimensions} for table in tables]
    return {
        table.key: _alone(
            table,
            rules,
            linked=any(mine & other for place, other in enumerate(columns) if place != index),
        )
        for index, (table, mine) in enumerate(zip(tables, columns, strict=True))
    }


def _alone(table: ExactTable, rules: HidingRules, *, linked: bool) -> Hidden:
    counts, minimum = table.counts, max(rules.minimum, table.minimum)
    if not has_small(counts, minimum) and table.measure == "count":
        return Hidden(np.ones(table.shape, dtype=bool), None)
    hidden = None
    if not linked and table.measure == "count" and len(table.dimensions) == 1:
        hidden = hide_line(counts.ravel(), minimum)
    if hidden is None:
        return Hidden(None, RefusalCode.RELEASE_CELL_TOO_SMALL)
    return Hidden(~hidden.reshape(table.shape), RefusalCode.RELEASE_CELL_TOO_SMALL)
