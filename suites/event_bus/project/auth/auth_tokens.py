def issue(user: str) -> str:
    """A token for a user who has logged in."""
    return f"token of {user}"
