"""What the master answers: `/metrics` and `/openapi`."""
