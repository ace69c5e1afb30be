"""mosec_cy: a model server for Python."""

__version__ = "0.1.0"
