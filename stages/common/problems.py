"""What a user can do about an error: the library names the culprit, this adds the way out."""

from generative.errors import FileDamagedError, FileMissingError, PipelineError, SettingError


def explain(error: PipelineError) -> str:
    """One sentence, or a few, for the user of the pipeline."""
    if isinstance(error, SettingError):
        return f"params: {error}"
    if isinstance(error, FileMissingError):
        return f"{error}: `dvc repro` makes it, `dvc pull` fetches it."
    if isinstance(error, FileDamagedError):
        return f"{error}: delete it, then `dvc pull` or `dvc repro`."
    return str(error)
