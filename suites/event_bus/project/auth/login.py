def log_in(user: str, password: str) -> bool:
    """Whether a user may come in."""
    return bool(user and password)
