"""The profiler, apart from any server."""
