"""The hub of models and datasets: what may be a name on it, and each of its faults as the end of an error line."""

import re
from typing import NamedTuple

from optimizer.errors import first_line

_TRANSPORT = ("httpx", "httpcore", "requests", "urllib3", "aiohttp")  # of huggingface_hub and datasets, by release
_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"
"""What to do without a token."""


class Named(NamedTuple):
    """A repository, `organization/name`, and the branch, tag or commit of it, None for its main branch."""

    name: str
    revision: str | None


def named(text: str) -> Named | None:
    """What `organization/name` or `organization/name@revision` names; None for what cannot be on the hub."""
    found = None if text.startswith((".", "/", "~")) else _NAME.fullmatch(text)
    return Named(found["name"], found["revision"]) if found else None


def fault(error: BaseException, where: Named, instead: str | None = None) -> str:
    """What went wrong with a repository on the hub, and what to do; `instead` is what need not come from there."""
    from huggingface_hub import constants, errors

    error, name = _telling(error), where.name
    otherwise = f", or write {instead}" if instead else ""
    if isinstance(error, errors.GatedRepoError):
        return f"'{name}' is gated: accept its terms at {constants.ENDPOINT}/{name}, and {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub shows no '{name}': write it as the hub does; if it is private, {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"'{name}' has no revision '{where.revision}'; write a branch, a tag or a commit of it: {name}@main"
    if isinstance(error, errors.OfflineModeIsEnabled):
        lacking = f"'{name}' is not in the cache, and " if instead else ""
        return f"{lacking}HF_HUB_OFFLINE forbids to ask the hub; unset it{otherwise}"
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error, name)
    if isinstance(error, errors.HFValidationError):
        return f"'{name}' is no name on the hub; write ORGANIZATION/NAME"
    if isinstance(error, OSError) and error.errno and not _is_transport(error):
        return f"the hub's cache cannot be used ({error.strerror}); set HF_HOME to a folder on another disk"
    if isinstance(error, OSError) or _is_transport(error):
        return f"the hub cannot be reached ({type(error).__name__}); connect to the network{otherwise}"
    return f"the hub's library fails with {type(error).__name__} ({first_line(error)}); try another release of it"


def _telling(error: BaseException) -> BaseException:
    """The hub's answer that others were raised for, or else the failure to reach it, without what made that."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    answers = [each for each in chain if isinstance(each, HfHubHTTPError | OfflineModeIsEnabled)]
    failures = [each for each in chain if _is_transport(each)]
    others = [each for each in chain if not isinstance(each, LocalEntryNotFoundError)]
    return (answers or failures or others or chain)[0]


def _is_transport(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(_TRANSPORT)


def _refusal(error: BaseException, name: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status == 401:
        return f"the hub does not know your token; {LOG_IN} again"
    if status == 403:
        return f"your token has no permission for '{name}'; {LOG_IN} to one that has"
    if status < 500:
        said = getattr(error, "server_message", None) or "no reason given"
        return f"the hub refuses '{name}' with error {status} ({said}); write another name, or see its settings there"
    return f"the hub answers with error {status}; try again later"
