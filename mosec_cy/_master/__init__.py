"""The control plane: it starts, watches and replaces the processes of a service."""
