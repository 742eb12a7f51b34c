"""Models that are asked over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from recipes.pipeline.checks.registry import Finding, Rule

S1 = Rule(
    "S1",
    title="A server is no stage of a pipeline, and one model is asked at a time",
    explanation="A server has no output and no end: the stages after it would wait for ever. A stage with inputs.model "
    "starts a server for itself and asks that one, so a second model in endpoint would be ignored.",
    fix="name the checkpoint in inputs.model of the stage that asks, or start the server by hand and set endpoint.url",
)


@S1
def no_server_in_a_pipeline(stage):
    if stage.kind == "serve":
        fix = "leave the stage out; python -m recipes.stages.served writes the config of a server started by hand"
        yield "kind", "a server runs until it is stopped and cannot be a stage of a pipeline", fix


@S1
def one_model_is_asked(stage):
    if stage.get("endpoint") and stage.get("inputs.model") is not None:
        yield from second_model(stage.get("endpoint"))


def second_model(endpoint: dict) -> Iterator[Finding]:
    """What in `endpoint` cannot be, where the stage serves inputs.model itself."""
    if endpoint["protocol"] == "batch":
        message = "batch files are for servers elsewhere; inputs.model is asked over HTTP"
        yield "endpoint.protocol", message, "use openai or nemo"
    for key in ("url", "model"):
        if endpoint.get(key) is not None:
            yield f"endpoint.{key}", "is set, and so is inputs.model: two models to ask", "set one of them to null"
