"""The graph of stages: order, cycles, and which stages a command is about."""

from __future__ import annotations

from recipes.errors import Problem, UserInputError

Parents = dict[str, list[str]]  # stage -> the stages whose outputs it reads


def order(parents: Parents) -> list[str]:
    """Every stage after its parents; ties keep the order of the file. Raises UserInputError that names a cycle."""
    done: list[str] = []
    while len(done) < len(parents):
        ready = [name for name in parents if name not in done and all(p in done for p in parents[name])]
        if not ready:
            cycle = " -> ".join(_cycle({n: p for n, p in parents.items() if n not in done}))
            raise UserInputError(
                Problem(
                    "",
                    "stages",
                    f"the inputs form a circle: {cycle}",
                    "point one of these inputs at an earlier stage or a file",
                )
            )
        done.append(ready[0])
    return done


def _cycle(left: Parents) -> list[str]:
    """One circle among stages that all wait for each other, in the direction the data would flow."""
    path = [next(iter(left))]
    while path.count(path[-1]) < 2:
        path.append(next(p for p in left[path[-1]] if p in left))
    return path[path.index(path[-1]) :][::-1]


def children(parents: Parents) -> Parents:
    """stage -> the stages that read its outputs."""
    return {name: [child for child, its in parents.items() if name in its] for name in parents}


def reach(start: list[str], edges: Parents) -> set[str]:
    """`start` and everything that can be reached from it along `edges`."""
    found, todo = set(), list(start)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(edges[name])
    return found


def select(parents: Parents, *, start: list[str] = (), until: list[str] = (), only: list[str] = ()) -> list[str]:
    """The stages to run, in order.

    start: these stages and everything that depends on them       (--from)
    until: these stages and everything that they depend on        (--until)
    only:  exactly these                                          (--only, not together with the other two)
    """
    for option, names in (("--from", start), ("--until", until), ("--only", only)):
        for name in names:
            if name not in parents:
                raise UserInputError(unknown_stage(name, parents, option))
    if only and (start or until):
        raise UserInputError(
            Problem("", "--only", "does not go together with --from or --until", "give one or the other")
        )
    chosen = set(only) or set(parents)
    if start:
        chosen &= reach(start, children(parents))
    if until:
        chosen &= reach(until, parents)
    if not chosen:
        message = f"no stage lies between {', '.join(start)} and {', '.join(until)}"
        raise UserInputError(Problem("", "--from/--until", message, "`align show` prints what depends on what"))
    return [name for name in order(parents) if name in chosen]


def unknown_stage(name: str, known, where: str) -> Problem:
    """The problem of a stage name that the pipeline does not have."""
    from recipes.pipeline.merge import did_you_mean

    close = did_you_mean(name, known)
    fix = f"did you mean `{close[0]}`?" if close else f"the stages are: {', '.join(known)}"
    return Problem("", where, f"there is no stage `{name}`", fix)
