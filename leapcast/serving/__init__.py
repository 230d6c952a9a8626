"""The HTTP server: ``leapcast serve``. Needs the extra ``serve``."""
