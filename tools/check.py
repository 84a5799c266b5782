"""`make check`: are the results here the committed ones? `make repro` and `make zoo` end with the answer.

With portable bytes a run gives the same bytes on every x86-64 processor with AVX2. Elsewhere weights differ in their
last bits, and a training that differs in one bit ends as one with another seed does. So each score of `metrics/` is
held against that of the last commit (HEAD), within a tolerance that comes from how far scores spread over other seeds
of the models (seeds.tsv) and of the extractors (extractor_seeds.tsv), and from how many are compared (tolerance.py).

`python -m tools.check` exits with 0 if the results are the committed ones, byte for byte or within the tolerance, 1 if
some score is not, 2 if that cannot be judged: no git, other settings or other code than the committed ones, or a run
that is not finished. It says which; behind make every failure is a 2.
"""

import json
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from generative.errors import PipelineError
from generative.io.files import read_json
from stages.common.params import read_params
from stages.common.paths import CODE, REAL, ROOT, Pipeline
from stages.common.problems import explain
from tools.entry import run_tool
from tools.machine import committed_text, fingerprint, made_on, outputs, record, this_machine
from tools.pipelines import present_pipelines
from tools.staleness import UnansweredError, stale_stages

REPRODUCED, DIFFERENT, UNJUDGED = 0, 1, 2
_SHOWN = 4  # differences that are named
_FOR_THE_EYE = ("figures", "report")  # blocks of the params on which no score depends
_METRICS = ("scores", "errors")
_DAMAGE = (OSError, AttributeError, KeyError, TypeError, ValueError, YAMLError)  # of a file edited, or half merged


class Verdict(NamedTuple):
    """Whether the results of a pipeline are the committed ones, and the sentence that says so."""

    code: int
    sentence: str


def main() -> int:
    """Print the verdict on each pipeline that was run here; returns the exit code."""
    verdicts = [judge(here) for here in present_pipelines() if here == ROOT or _was_run(here)]
    for verdict in verdicts:
        print(verdict.sentence)
    codes = {verdict.code for verdict in verdicts}
    return next((code for code in (DIFFERENT, UNJUDGED, REPRODUCED) if code in codes), UNJUDGED)


def judge(here: Pipeline, *, finished: bool = False) -> Verdict:
    """Hold the results of one pipeline against those of HEAD; `finished` says that no stage has anything to do."""
    name = f"make {here.folder.name or 'repro'}"
    try:
        code, words = _judge(here, name, finished=finished)
    except UnansweredError as reason:
        code, words = UNJUDGED, str(reason)
    except PipelineError as error:
        code, words = UNJUDGED, explain(error)
    except _DAMAGE as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        code, words = UNJUDGED, f"a file is missing or damaged ({said})."
    start = "whether these are the committed results cannot be judged: " if code == UNJUDGED else ""
    return Verdict(code, f"{name}: {start}{words}")


def _judge(here: Pipeline, name: str, *, finished: bool) -> tuple[int, str]:
    lock = here.definition.with_suffix(".lock")
    committed = committed_text(lock)
    if committed is None:
        raise UnansweredError(f"{_why_there_is_no_head() or f'the last commit has no {lock}'}.")
    if not _was_run(here):
        raise UnansweredError("nothing was run here yet.")
    stale = [] if finished else [stage for stage in stale_stages() if (":" in stage) == (here != ROOT)]
    there, own = outputs(committed), outputs(lock.read_text(encoding="utf-8"))
    if not own:
        raise UnansweredError(f"{lock} names no results.")
    different = sorted(path for path in own.keys() | there.keys() if own.get(path) != there.get(path))
    if not stale and not different:
        return REPRODUCED, "these are the committed results, byte for byte."
    if changed := changed_params(here):
        raise UnansweredError(f"settings are not those of the last commit ({_some(changed)}).")
    if stale:
        raise UnansweredError(f"the run is not finished, `{name}` would still run {_some(stale)}.")
    scores, errors = (committed_scores(here, kind) for kind in _METRICS)
    if missing := [model for model in scores if not scores[model] or not errors[model]]:
        raise UnansweredError(f"the last commit has no scores of {_some(missing)}.")
    found = {model: read_json(here.metrics("scores", model)) for model in scores}
    if found == scores:
        return (
            REPRODUCED,
            f"every score is that of the last commit, to the last digit; other bytes have {_some(different)}.",
        )
    if changed := changed_code(here):
        raise UnansweredError(f"code is not that of the last commit ({_some(changed)}).")
    return compare(here, found, fingerprint(committed))


def compare(here: Pipeline, found: Mapping[str, dict[str, float]], results: str) -> tuple[int, str]:
    """The verdict from the scores `found`, where not all are the committed ones; those are of `results`."""
    from tools.seeds import read_seed_tables  # seldom needed, and slow to import
    from tools.tolerance import deviations, differing, tolerances

    homes = present_pipelines()
    committed, errors = (
        {model: row for home in homes for model, row in committed_scores(home, kind).items()} for kind in _METRICS
    )
    of_models, of_extractors = (deviations(rows, committed) for rows in read_seed_tables())
    allowed = tolerances(committed, errors, of_models, of_extractors, list(found))
    if not allowed:
        raise UnansweredError(
            "the bytes are not those of the last commit, and how far scores spread is not known: run `make seeds` and "
            '`make seeds EXTRACTORS="1 2"`.'
        )
    count, differences = differing(found, committed, allowed)
    machines = _machines(here, results)
    if differences:
        return DIFFERENT, (
            f"these are not the committed results: {len(differences)} of {count} scores lie further from them than "
            f"another seed could take them ({_some(map(str, differences), '; ')}).{machines}"
        )
    return REPRODUCED, (
        f"these are the committed results, though not their bytes: all {count} scores that can be compared (of "
        f"{sum(map(len, found.values()))}) lie as near to them as those of another seed.{machines}"
    )


def changed_params(here: Pipeline) -> list[str]:
    """Settings that are not those of HEAD, each with both values; of the report and the figures none."""
    found = []
    for path in dict.fromkeys((ROOT.params, here.params)):
        new, old = (
            {key: block for key, block in (YAML(typ="safe").load(text or "") or {}).items() if key not in _FOR_THE_EYE}
            for text in (path.read_text(encoding="utf-8"), committed_text(path))
        )
        found += _changes(new, old)
    if committed_text(here.definition) != here.definition.read_text(encoding="utf-8"):
        found.append(str(here.definition))
    return found


def _changes(new: Any, old: Any, prefix: str = "") -> list[str]:
    if new == old:
        return []
    if not (isinstance(new, dict) and isinstance(old, dict)):
        return [f"{prefix}: {new}, committed {old}"]
    found = []
    for key in dict.fromkeys((*new, *old)):
        name = f"{prefix}.{key}" if prefix else str(key)
        if key in new and key in old:
            found += _changes(new[key], old[key], name)
        else:
            found.append(f"{name}: {'new' if key in new else 'gone'}")
    return found


def changed_code(here: Pipeline) -> list[str]:
    """Modules whose code, as far as a result depends on it, is not that of HEAD."""
    found: dict[str, None] = {}
    for path in sorted({*here.code.rglob("*.txt"), *CODE.rglob("*.txt")}):
        new, old = (text.splitlines() for text in (path.read_text(encoding="utf-8"), committed_text(path) or ""))
        found |= dict.fromkeys(line.split(maxsplit=1)[-1] for line in (*new, *old) if (line in new) != (line in old))
    return list(found)


def committed_scores(here: Pipeline, kind: str) -> dict[str, dict[str, float]]:
    """One of _METRICS at HEAD, of each model and in the root of real images; empty where it has none."""
    names = [*([REAL] if here == ROOT else []), *read_params(here).models]
    return {name: json.loads(committed_text(here.metrics(kind, name)) or "{}") for name in names}


def _why_there_is_no_head() -> str:
    """What is wrong with git here; empty if there is a commit."""
    try:
        asked = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no git"
    return f"git says '{' '.join(asked.stderr.split())}'" if asked.returncode else ""


def _was_run(here: Pipeline) -> bool:
    return any(here.model("any").parent.glob("*.safetensors"))


def _machines(here: Pipeline, results: str) -> str:
    """A sentence on what differs between what made the committed results and this, with a space before it."""
    there, own = made_on(committed_text(record(here)), results), this_machine(read_params(here))
    if not there:
        return ""
    other = [f"{key} {there.get(key)}, here {value}" for key, value in own.items() if there.get(key) != value]
    return f" The committed ones are of {'; '.join(other)}." if other else " They were made on a machine like this."


def _some(items: Iterable[str], between: str = ", ") -> str:
    """The first few of many."""
    every = list(items)
    more = f"{between}and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return between.join(every[:_SHOWN]) + more


if __name__ == "__main__":
    run_tool(main)
