"""In which order stages run, and what side by side."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import networkx as nx


@dataclass(frozen=True)
class Stage:
    """What a run knows of a stage."""

    needs: frozenset[str]  # the stages that it waits for
    cores: int = 0  # that it keeps busy; 0 for one that hardly computes
    seconds: float = 0.0  # that it takes, about
    devices: int = 0  # of the accelerator
    folder: Path = Path()  # the repository that it is a stage of
    command: tuple[str, ...] = ()  # that DVC runs there; empty: `repro -s` and the key


@dataclass
class Outcome:
    """How a run ended: exit codes of stages that failed, and what was left out because of them."""

    failed: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Room:
    """What may run at once."""

    stages: int
    cores: int
    devices: int = 0


class Crew(Protocol):
    """Those who run the stages."""

    def room(self) -> Room:
        """What may run at once, at this moment."""

    def start(self, name: str) -> None:
        """Begin a stage."""

    def wait(self) -> Mapping[str, int]:
        """Exit codes of the stages that have ended since the last call; takes a moment if none has."""


def schedule(stages: Mapping[str, Stage], crew: Crew, *, done: Collection[str] = ()) -> Outcome:
    """Run every stage once, none before the stages it needs have succeeded.

    Args:
        stages: by name; of those that are ready, the one with the longest way to the end comes first.
        crew: runs them.
        done: stages that need not run.
    """
    urgency = longest_ways(stages)
    finished = set(done)
    waiting = {name: stages[name] for name in sorted(stages, key=lambda name: -urgency[name]) if name not in finished}
    running: set[str] = set()
    outcome = Outcome()
    while waiting or running:
        room = crew.room()
        for name, stage in list(waiting.items()):
            busy = [stages[other] for other in running]
            if (
                stage.needs <= finished
                and len(running) < room.stages
                and (not stage.cores or sum(other.cores for other in busy) + stage.cores <= room.cores)
                and (not stage.devices or sum(other.devices for other in busy) + stage.devices <= room.devices)
            ):
                crew.start(name)
                running.add(name)
                del waiting[name]
        if not running and not any(stage.needs <= finished for stage in waiting.values()):
            break  # what waits needs something that failed
        for name, code in crew.wait().items():
            running.remove(name)
            if code:
                outcome.failed[name] = code
            else:
                finished.add(name)
    outcome.skipped = [name for name in stages if name in waiting]
    return outcome


def longest_ways(stages: Mapping[str, Stage]) -> dict[str, float]:
    """Seconds from the start of each stage to the end of the pipeline, had it a core of its own."""
    graph = nx.DiGraph([(needed, name) for name, stage in stages.items() for needed in stage.needs if needed in stages])
    graph.add_nodes_from(stages)
    ways: dict[str, float] = {}
    for name in reversed(list(nx.topological_sort(graph))):
        ways[name] = stages[name].seconds + max((ways[after] for after in graph.successors(name)), default=0.0)
    return ways
