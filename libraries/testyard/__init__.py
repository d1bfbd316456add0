"""The robot-free backends of testyard: usable from keywords, from pytest and from a script."""

__version__ = "0.1.0"
