"""NeMo's MegatronServer as the Flask application, with its handlers behind checks and behind the worker.

`PUT /generate` is NeMo's own handler, run in the thread that generates. Its two OpenAI routes are answered by
recipes/engine/serving/api.py: NeMo's tell the other ranks to generate before they read the request, count words as
tokens and leave finish_reason empty (nemo-toolkit 2.1.0, text_generation_server.py).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict

from flask import Flask, Response, copy_current_request_context, jsonify, request
from nemo.collections.nlp.modules.common import text_generation_server
from nemo.collections.nlp.modules.common.text_generation_strategy import GPTModelTextGenerationStrategy
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wsgi import ClosingIterator

from recipes.engine.serving import api, generate
from recipes.engine.serving.rows import Refused
from recipes.engine.serving.worker import Worker

LARGEST_BODY = 32 * 2**20


class Web:
    """The HTTP side. url: where it listens; `start` and `stop` a thread that takes connections, one more for each."""

    def __init__(self, worker: Worker, served: api.Served, limits: generate.Limits, host: str, port: int):
        self._requests = 0
        app = _application(worker, served, limits)
        self._server = make_server(host, port, self._counted(app.wsgi_app), threaded=True, request_handler=_Quiet)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float = 5.0) -> None:
        """Take no more connections, and wait for the responses that are being written."""
        self._server.shutdown()
        deadline = time.monotonic() + patience
        while self._requests and time.monotonic() < deadline:
            time.sleep(0.02)
        self._server.socket.close()

    def _counted(self, app):
        lock = threading.Lock()

        def add(number: int) -> None:
            with lock:
                self._requests += number

        def counted(environ, start_response):
            add(1)
            try:
                body = app(environ, start_response)
            except BaseException:
                add(-1)
                raise
            return ClosingIterator(body, lambda: add(-1))

        return counted


class _Quiet(WSGIRequestHandler):
    """Logs only what was not answered with success."""

    def log_request(self, code="-", size="-"):
        if int(code) >= 400:
            super().log_request(code, size)


def _application(worker: Worker, served: api.Served, limits: generate.Limits) -> Flask:
    text_generation_server.logging = logging.getLogger("nemo.server")  # NeMo's own logs the text of every prompt
    # Without a strategy NeMo imports all its multimodal models to find out that this is none of them.
    app = text_generation_server.MegatronServer(worker.model, GPTModelTextGenerationStrategy(worker.model)).app
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    nemo = app.view_functions["generate"]

    def put_generate():
        generate.check(_body(), limits)
        return worker.call(copy_current_request_context(nemo)).result()

    def openai(read):
        def view():
            asked = read(_body(), served)
            answers = [future.result() for future in worker.submit(asked.rows)]
            return jsonify(api.response(asked, answers, served))

        return view

    # NeMo has registered the routes; its OpenAI handlers are replaced, the other one is called after the check.
    app.view_functions["generate"] = _answered("PUT", put_generate)
    app.view_functions["oai_completions"] = _answered("POST", openai(api.completion))
    app.view_functions["oai_chat_completions"] = _answered("POST", openai(api.chat))
    app.add_url_rule("/v1/models", "models", lambda: jsonify(api.models(served)))
    app.add_url_rule("/health", "health", lambda: _health(worker))
    app.register_error_handler(HTTPException, lambda error: _refusal(_as_refused(error)))
    return app


def _body():
    """The request's JSON. Refused without the type application/json, which a web page may not send to other sites."""
    if not request.is_json:
        raise Refused("the body must be of type application/json", status=415)
    try:
        body = request.get_json(silent=True)
        json.dumps(body, ensure_ascii=False).encode()
    except RecursionError:  # nested too deeply
        body = None
    except UnicodeEncodeError:  # fatal to a tokenizer
        raise Refused("a text holds one half of a surrogate pair") from None
    if body is None:
        raise Refused("the body is not JSON")
    return body


def _answered(method: str, view):
    """`view` for one method; NeMo has registered more of them. Its errors become JSON."""

    def answered():
        try:
            if request.method != method:
                raise Refused(f"this path takes {method}, not {request.method}", status=405)
            return view()
        except Refused as refused:
            return _refusal(refused)
        except HTTPException as error:
            return _refusal(_as_refused(error))

    return answered


def _as_refused(error: HTTPException) -> Refused:
    return Refused(error.description, status=error.code)


def _refusal(refused: Refused) -> Response:
    response = jsonify(refused.body)
    response.status_code = refused.status
    return response


def _health(worker: Worker) -> Response:
    """200 while requests are taken, 503 while the server stops; with what was done so far."""
    state = {"status": "stopping" if worker.stopping else "ready", **asdict(worker.counts)}
    response = jsonify(state)
    response.status_code = 503 if worker.stopping else 200
    return response
