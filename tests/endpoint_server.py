"""A server that speaks the protocol of language models behind an endpoint, with a teacher behind it, and that fails as real ones do."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from zskd.teachers import Teacher

PROMPT = "Text: {text}\nnegative or positive?"
TOKENS = ("Neg", " positive", "The")  # what the server shows first, with 0.9 of the probability for the classes


class FakeEndpoint:
    "A server on this machine. `delivered` counts the complete answers to each question."

    def __init__(self, teacher: Teacher, fault: Callable[[int], str | None] = lambda n: None, delay: float = 0.0):
        self.teacher, self.fault, self.delay = teacher, fault, delay
        self.requests, self.delivered = [], Counter()
        self.models, self.shows, self.text = ["small"], True, ("Negative", "Positive")
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                owner._send(self, 200, {"object": "list", "data": [{"id": m, "object": "model", "created": 0} for m in owner.models]})

            def do_POST(self) -> None:
                owner._post(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _send(self, to: BaseHTTPRequestHandler, status: int, data: Any, **headers: str) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        to.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body)

    def _post(self, to: BaseHTTPRequestHandler) -> None:
        asked = json.loads(to.rfile.read(int(to.headers["Content-Length"])))
        with self._lock:
            self.requests.append(asked | {"key": to.headers["Authorization"]})
            number = len(self.requests)
        fault = self.fault(number)
        time.sleep(self.delay)
        if fault == "dead":  # the connection breaks without a word
            to.close_connection = True
            to.connection.close()
            return
        if fault and fault.isdigit():
            self._send(to, int(fault), {"error": {"message": "not\nnow"}}, **({"retry-after-ms": "20"} if fault == "429" else {}))
            return
        chat = to.path.endswith("/chat/completions")
        question = asked["messages"][0]["content"] if chat else asked["prompt"]
        body = json.dumps(self.answer(question, asked, chat)).encode()
        if fault == "cut":
            self._send(to, 200, body[: len(body) // 2])
            return
        if fault == "broken":  # the headers promise more than comes
            to.send_response(200)
            to.send_header("Content-Length", str(len(body)))
            to.end_headers()
            to.wfile.write(body[:20])
            to.wfile.flush()
            to.close_connection = True
            return
        with self._lock:
            self.delivered[question] += 1
        self._send(to, 200, body)

    def answer(self, question: str, asked: dict[str, Any], chat: bool) -> dict[str, Any]:
        "An answer in the protocol's form."
        text = question.removeprefix("Text: ").removesuffix("\nnegative or positive?")
        with self._lock:
            z = self.teacher.logits([text])[0]
        p = 0.9 * np.exp(z) / np.exp(z).sum()
        top = dict(sorted(zip(TOKENS, np.log([*p, 0.06]).tolist(), strict=True), key=lambda item: -item[1]))
        said = self.text[int(p.argmax())]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if chat:
            shown = [{"token": t, "logprob": v, "bytes": None} for t, v in top.items()]
            choice |= {"message": {"role": "assistant", "content": said}, "logprobs": None}
            if self.shows and asked.get("logprobs"):
                choice["logprobs"] = {"content": [shown[0] | {"top_logprobs": shown}]}
        else:
            choice |= {"text": said, "logprobs": {"top_logprobs": [top]} if self.shows and asked.get("logprobs") else None}
        used = {"prompt_tokens": len(question.split()), "completion_tokens": 1, "total_tokens": 1 + len(question.split())}
        return {
            "id": "x",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": "small",
            "choices": [choice],
            "usage": used,
        }
