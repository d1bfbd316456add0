"""The reducer: makes of a workflow's events its row, and of all workflows of a namespace its totals."""
