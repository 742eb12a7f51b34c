"""The texts that models are asked with: configs/prompt/<name>.jinja, ours, each named by the hash of its file.

A leading `{# ... #}` comment says what the text is for and which values it takes; a value that is missing is an error,
never an empty place in a prompt.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from recipes.errors import Problem, UserInputError

PROMPT_DIR = Path(__file__).resolve().parents[2] / "configs" / "prompt"


@dataclass(frozen=True)
class Text:
    """One template of a prompt. sha256: of the file's bytes; every row that it helped to make records it."""

    name: str
    source: str
    sha256: str

    @classmethod
    def load(cls, name: str) -> Text:
        """configs/prompt/<name>.jinja, or `name` itself if it is a path to a .jinja file. Raises UserInputError."""
        path = Path(name) if str(name).endswith(".jinja") else PROMPT_DIR / f"{name}.jinja"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in PROMPT_DIR.glob("*.jinja")))
            raise UserInputError(Problem("", str(path), "there is no such prompt template", f"known: {known}"))
        data = path.read_bytes()
        return cls(path.stem, data.decode("utf-8"), hashlib.sha256(data).hexdigest())

    def render(self, **values: object) -> str:
        """The text with the values filled in, blank space at its ends removed. Raises jinja2.UndefinedError."""
        return _compiled(self.source).render(**values).strip()


@lru_cache(maxsize=256)
def _compiled(source: str):
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)
