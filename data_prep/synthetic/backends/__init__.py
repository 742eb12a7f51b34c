"""The ways to reach a model: chat completions over HTTP, files of requests, NeMo's own server."""
