"""The hub of models and datasets: what may be a name on it, and each of its faults as the end of an error line."""

import re
from typing import NamedTuple

_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_LOG_IN = "`hf auth login`, or set HF_TOKEN"


class Named(NamedTuple):
    """A repository, `organization/name`, and the branch, tag or commit of it, None for its main branch."""

    name: str
    revision: str | None


def named(text: str) -> Named | None:
    """What `organization/name` or `organization/name@revision` names; None for what cannot be on the hub."""
    found = None if text.startswith((".", "/", "~")) else _NAME.fullmatch(text)
    return Named(found["name"], found["revision"]) if found else None


def fault(error: BaseException, where: Named, instead: str) -> str:
    """What went wrong with a repository on the hub, and what to do; `instead` is what need not come from there."""
    from huggingface_hub import constants, errors

    error = _telling(error)
    name = where.name
    if isinstance(error, errors.GatedRepoError):
        return f"'{name}' is gated: accept its terms at {constants.ENDPOINT}/{name}, and log in by {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub shows no '{name}': write it as the hub does; if it is private, log in by {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"'{name}' has no revision '{where.revision}'; write a branch, a tag or a commit of it: {name}@main"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"'{name}' is not in the cache, and HF_HUB_OFFLINE forbids to ask the hub; unset it, or write {instead}"
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error, name)
    if isinstance(error, OSError) and error.errno is not None:
        return f"the hub's cache cannot be used ({error.strerror}); set HF_HOME to a folder on another disk"
    if isinstance(error, errors.HFValidationError):
        return f"'{name}' is no name on the hub; write ORGANIZATION/NAME"
    return f"the hub cannot be reached ({type(error).__name__}); connect to the network, or write {instead}"


def _telling(error: BaseException) -> BaseException:
    """The answer or the failed connection that others were raised for, as those of an incomplete cache are."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    while not isinstance(error, HfHubHTTPError | OfflineModeIsEnabled) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _refusal(error: Exception, name: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"the hub does not know your token; log in again by {_LOG_IN}"
    if status == 403:
        return f"your token has no permission for '{name}'; log in by {_LOG_IN} with one that has"
    return f"the hub answers with error {status}; try again later"
