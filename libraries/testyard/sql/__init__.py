"""PostgreSQL as a test sees it: statements with bound parameters, rows, transactions, notifications, backends."""
