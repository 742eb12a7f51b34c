"""Let NeMo-Aligner run without apex, Transformer Engine or CUDA, and with a newer torch than it was written for.

Each part asks for itself whether it is needed and does nothing where the real thing is installed, so the same stage
runs in NVIDIA's container untouched. The order matters: megatron-core has to look for apex before a stand-in exists,
so that it falls back to its own plain implementations instead of believing in fused kernels.

    import recipes.engine.compat as compat
    compat.install()      # before the first import of nemo or nemo_aligner

`install` returns the names of the parts that were active; stages record them in their manifests.
"""

from __future__ import annotations

_active: list[str] | None = None


def install() -> list[str]:
    """Apply what this machine needs, once per process. Returns the names of the active parts."""
    global _active
    if _active is not None:
        return _active

    from recipes.engine.compat import adapters, apex, cuda, fused_adam, gloo, torch_version, transformer_engine

    parts = (torch_version, cuda, gloo, transformer_engine, adapters, apex, fused_adam)
    needed = [part for part in parts if part.needed()]
    for part in needed:
        part.before_nemo()
    for part in needed:
        part.after_nemo()
    _active = [part.__name__.rpartition(".")[2] for part in needed]
    return _active
