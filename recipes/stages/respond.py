"""Stage `respond`: prompts -> responses of a model that is asked over HTTP or through batch files."""

from __future__ import annotations

from pathlib import Path

from recipes.errors import Problem, StageFailed, UserInputError


def main(cfg: dict, stage_dir: Path) -> dict:
    """outputs/responses.jsonl: the prompt rows in their order, each with "responses": [{"text", "finished", "tokens",
    "model"}]; a failed request leaves its response out. Facts: see `facts`."""
    from data_prep.first_turns import refuse_shared
    from data_prep.jsonl import write_rows
    from data_prep.prompts import read_prompts
    from data_prep.synthetic.endpoint import open_model
    from data_prep.synthetic.requests import Request, Sampling, Unanswered
    from data_prep.template import Template
    from recipes.engine.metrics import JsonlLogger
    from recipes.stages.served import served

    template = Template.load(cfg["template"])
    prompts = read_prompts(Path(cfg["inputs"]["prompts"]), template)
    refuse_shared(prompts, cfg["inputs"]["prompts"], cfg["inputs"]["disjoint_from"], template)
    each, how = cfg["responses_per_prompt"], Sampling(**cfg["sampling"])
    if each > 1 and how.temperature == 0:
        message = f"is {each}, but at sampling.temperature 0 all responses to a prompt are the same"
        raise UserInputError(Problem("", "responses_per_prompt", message, "raise the temperature, or ask for one"))
    requests = [Request(tuple(row["messages"]), how, sample=number) for row in prompts for number in range(each)]
    with served(cfg, stage_dir) as endpoint:
        progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", len(requests))
        model = open_model(endpoint, stage_dir / "data", template, progress=progress)
        try:
            replies = model.ask(requests, "responses")
        except Unanswered as error:
            raise StageFailed(str(error)) from None
    rows = []
    for number, row in enumerate(prompts):
        mine = [reply for reply in replies[number * each : (number + 1) * each] if not reply.error]
        rows.append({**row, "responses": [response(reply, model) for reply in mine]})
    write_rows(stage_dir / "outputs" / "responses.jsonl", rows)
    return facts(rows, model)


def response(reply, model) -> dict:
    """model: the hash of the checkpoint if it is known, else the name that the server reports."""
    wrote = model.sha256 or reply.model or model.name
    return {"text": reply.text, "finished": reply.finished, "tokens": reply.tokens, "model": wrote}


def facts(rows: list[dict], model) -> dict:
    """tokens_mean: None where the server does not count tokens."""
    flat = [response for row in rows for response in row["responses"]]
    counted = [response["tokens"] for response in flat if response["tokens"]]
    return {
        "prompts": len(rows),
        "responses": len(flat),
        "prompts_without_response": sum(not row["responses"] for row in rows),
        "finished_share": sum(response["finished"] for response in flat) / len(flat) if flat else None,
        "tokens_mean": sum(counted) / len(counted) if counted else None,
        **model.facts(),
    }


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
