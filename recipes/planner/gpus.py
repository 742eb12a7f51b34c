"""The GPUs that a stage can be laid out for: memory, peak and bandwidth of one, from NVIDIA's data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.errors import Problem, UserInputError
from recipes.pipeline.merge import did_you_mean

PER_NODE = 8  # of the HGX and DGX systems of all kinds below; one NVLink domain, so the most that TP may take
FITS = 0.92  # share of the memory that a layout may fill: the allocator loses the rest to fragments


@dataclass(frozen=True)
class GPU:
    """One kind of GPU. memory: bytes; flops: dense bf16 a second, without sparsity; bandwidth: bytes a second.

    grade: B, read in secondary pages that quote the data sheet and agree; C, one secondary page; M, from memory
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    grade: str
    source: str

    @property
    def usable(self) -> float:
        return FITS * self.memory


GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("A100", 80e9, 312e12, 2.039e12, "B", "NVIDIA A100 data sheet, SXM4 80 GB: 312 TFLOPS bf16"),
        GPU("H100", 80e9, 989e12, 3.35e12, "B", "NVIDIA H100 data sheet, SXM5: 1,979 TFLOPS with sparsity"),
        GPU("H200", 141e9, 989e12, 4.8e12, "B", "NVIDIA H200 data sheet, SXM: 1,979 TFLOPS with sparsity"),
        GPU(
            "B200",
            180e9,
            2250e12,
            8e12,
            "C",
            "DGX B200: 1,440 GB, 64 TB/s for eight; HGX B200: 4,500 TFLOPS with sparsity",
        ),
        GPU("RTX-4090", 24e9, 165e12, 1.008e12, "M", "bf16 with float32 sums, no sparsity"),
    )
}


def find(name: str, where: str = "--gpu") -> GPU:
    """The GPU of a name, in any case. UserInputError where it is not known."""
    for known, gpu in GPUS.items():
        if known.lower() == str(name).lower():
            return gpu
    close = did_you_mean(str(name).upper(), GPUS)
    fix = f"did you mean {close[0]}?" if close else f"known are {', '.join(GPUS)}"
    raise UserInputError(Problem("", where, f"there is no GPU {name!r} in the planner's table", fix))
