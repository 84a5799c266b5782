"""Where and how to compute: settings that can be read before torch is loaded."""

from typing import Annotated, Literal

from pydantic import Field

from generative.config import Config


class ComputeConfig(Config):
    """Device, numerical precision and threads."""

    accelerator: Literal["cpu", "cuda"]
    devices: Annotated[int, Field(ge=1, le=64)]
    precision: Literal["32-true", "bf16-mixed"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    portable: bool  # the same bytes on every x86-64 with AVX2: also needs `generative.compute.environment.PORTABLE`

    @property
    def cores(self) -> int:
        """CPU cores that a computing process keeps busy, with all the processes that it starts."""
        return self.threads * (self.devices if self.accelerator == "cpu" else 1)
