"""The service's statements: one function is one statement or one transaction, named after what it does."""
