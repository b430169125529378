"""Pure parts of the views: order, totals, rows."""
