"""Job folder, status, wire protocol and the worker process."""
