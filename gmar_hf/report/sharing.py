"""A report's way to disk and to the Hub, and back."""

import inspect
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import CommitInfo, HfApi, ModelCard, ModelHubMixin, constants

from gmar_hf.errors import ArgumentError, ArgumentTypeError, ArtifactError
from gmar_hf.report.card import is_unedited, write_card
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.report.report_files import (
    CARD_FILE,
    SETTINGS_FILE,
    TENSORS_FILE,
    read_settings,
    read_tensors,
    write_report,
)
from gmar_hf.report.settings import check_heads, check_moments, plain_settings
from gmar_hf.report.traits import HeadTraits
from gmar_hf.utils.checks import check_flags
from gmar_hf.utils.files import checked_path
from gmar_hf.utils.hub import check_in_reach, download, hub_errors, no_folder, remote_card
from gmar_hf.utils.text import did_you_mean, shown

logger = logging.getLogger(__name__)

_Report = TypeVar("_Report", bound="SharedReport")


class SharedReport(ModelHubMixin):
    """What [`HeadImportanceReport`] holds, and the three verbs of the Hub for it.

    The mixin's own ways of writing and reading config and card are replaced: they take any config.json for arguments,
    and write a card that says nothing.

    Args:
        moments ([`Moments`]), weight_sample (`torch.Tensor`), settings (`Mapping[str, Any]`), means ([`HeadMeans`],
            *optional*), traits ([`HeadTraits`], *optional*): See [`HeadImportanceReport`].
    """

    def __init__(
        self,
        moments: Moments,
        weight_sample: torch.Tensor,
        settings: Mapping[str, Any],
        means: HeadMeans | None = None,
        traits: HeadTraits | None = None,
    ) -> None:
        self.settings = plain_settings(settings)
        check_moments(self.settings, moments)
        check_heads(self.settings, means, traits)
        self.settings.pop("traits", None)
        if traits is not None:
            self.settings["traits"] = traits.content()
        if weight_sample.ndim != 1 or weight_sample.dtype != torch.float32 or not torch.isfinite(weight_sample).all():
            raise ArgumentError(
                "`weight_sample` must have shape (values,) and be float32 and finite; got "
                f"{tuple(weight_sample.shape)}, {str(weight_sample.dtype).removeprefix('torch.')}."
            )
        self.moments = moments
        self.weight_sample = weight_sample
        self.means = means
        self.traits = traits

    def save_pretrained(  # the mixin's config and card arguments have no meaning here
        self,
        save_directory: str | os.PathLike[str],
        *,
        overwrite_card: bool = False,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        config: Any = None,
        model_card_kwargs: Any = None,
        **push_to_hub_kwargs: Any,
    ) -> CommitInfo | None:
        """Write report.safetensors, config.json, a card (README.md) and its figures. Same report, same bytes.

        Args:
            save_directory (`str` or `os.PathLike`): The folder; it is made. Files of an older report are replaced.
            overwrite_card (`bool`, defaults to False): Replace a README.md that somebody has written or edited.
            repo_id (`str`, *optional*): Where to push; the folder's name by default.
            push_to_hub (`bool`, defaults to False): Whether to push the report too.
            config, model_card_kwargs (*optional*): The mixin's; a report's are its own, so they can only be None.
            push_to_hub_kwargs: Further arguments of [`push_to_hub`], which are looked at also if nothing is pushed.

        Returns:
            The commit if it was pushed, None otherwise.

        Raises:
            ArgumentError: If the folder cannot be written. On a full disk an older report in it stays whole.
            ArgumentTypeError: If there is no such argument.
            HubError: If pushing fails.
        """
        _refuse_settings_of_the_mixin(config, model_card_kwargs)
        check_flags(overwrite_card=overwrite_card, push_to_hub=push_to_hub)
        known = inspect.signature(self.push_to_hub).parameters
        if unknown := [name for name in push_to_hub_kwargs if name not in known or name == "repo_id"]:
            raise ArgumentTypeError(
                f"`save_pretrained` must get arguments that it or `push_to_hub` has; got {', '.join(unknown)}."
                f"{did_you_mean(unknown[0], [*known, 'push_to_hub'])}"
            )
        folder = checked_path("save_directory", save_directory)
        self._write(folder, overwrite_card=overwrite_card)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.resolve().name, overwrite_card=overwrite_card, **push_to_hub_kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no arguments for a constructor
        cls: type[_Report],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        strict: bool = True,
        map_location: str | torch.device = "cpu",
    ) -> _Report:
        """Load a report from a folder or from the Hub. Only JSON and safetensors are read, and every number checked.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A folder, or a repo id where there is no such
                folder.
            revision (`str`, *optional*): Branch, tag or commit on the Hub; the main branch by default.
            token (`str` or `bool`, *optional*): For the Hub; the one you logged in with by default.
            cache_dir (`str` or `os.PathLike`, *optional*): In place of the Hub's cache.
            local_files_only (`bool`, defaults to False): Take it from the cache, ask nobody.
            force_download (`bool`, defaults to False): Download it again.
            strict (`bool`, defaults to True): What models of the mixin take; a report is read strictly in any case.
            map_location (`str` or `torch.device`, defaults to "cpu"): What they take, too; a report is on the CPU.

        Raises:
            ArgumentError: If `map_location` is another device.
            ArgumentTypeError: If it is neither path nor name.
            ArtifactError: If it is no report, corrupt, incomplete or of another version.
            HubError: If the Hub or the repository cannot be reached.
        """
        if not isinstance(pretrained_model_name_or_path, str | os.PathLike):
            raise ArgumentTypeError(
                "`pretrained_model_name_or_path` must be a folder or a repo id; got "
                f"{type(pretrained_model_name_or_path).__name__}. Pass where a report was saved or pushed to."
            )
        check_flags(local_files_only=local_files_only, force_download=force_download)
        if str(map_location) != "cpu":
            raise ArgumentError(
                f"`map_location` must be the CPU, where reports stay; got {str(map_location)!r:.40}. Leave it out."
            )
        name = os.fspath(pretrained_model_name_or_path)
        if os.path.isfile(name) or (_is_path(pretrained_model_name_or_path) and not os.path.isdir(name)):
            what = "a file" if os.path.isfile(name) else "no folder"
            raise ArtifactError(f"A report must be a folder or a repo id; got {name!r}, which is {what}.")
        cache = Path(cache_dir or constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}")

        def locate(file: str, revision: str | None) -> Path:
            if os.path.isdir(name):
                return Path(name, file)
            with hub_errors(name, "load the report", no_folder(name)):
                if not (local_files_only or cache.exists()):
                    check_in_reach(name, "model", token=token)
                return download(
                    name,
                    file,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )

        config = locate(SETTINGS_FILE, revision)
        settings, digest = read_settings(config, name)
        # In the Hub's cache a file's folder is named after its commit: somebody may push between the two downloads.
        tensors = locate(TENSORS_FILE, config.parent.name)
        moments, weight_sample, means, traits = read_tensors(tensors, name, settings, digest)
        return cls(moments, weight_sample, settings, means, traits)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool | None = None,
        commit_message: str = "Upload head-importance report",
        overwrite_card: bool = False,
        branch: str | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
        config: Any = None,
        model_card_kwargs: Any = None,
    ) -> CommitInfo:
        """Share the report: the files of [`save_pretrained`], in one commit; none where the Hub has just these.

        Args:
            repo_id (`str`): The repository; it is made if it does not exist.
            revision (`str`, *optional*): The branch; it is made if it does not exist. The main branch by default.
            private (`bool`, *optional*): Whether a new repository is private; the account's default by default.
            token (`str` or `bool`, *optional*): The one you logged in with by default.
            create_pr (`bool`, *optional*): Open a pull request in place of a commit.
            commit_message (`str`, defaults to "Upload head-importance report"): What the commit is called.
            overwrite_card (`bool`, defaults to False): Replace a README.md on the Hub that somebody has written or
                edited; else it is kept, with a warning in the log.
            branch (`str`, *optional*): The mixin's name for `revision`.
            allow_patterns, ignore_patterns, delete_patterns (`list[str]` or `str`, *optional*): Which of the files are
                pushed, and which on the Hub are deleted in the same commit, as `huggingface_hub.upload_folder` has it.
            config, model_card_kwargs (*optional*): The mixin's; a report's are its own, so they can only be None.

        Returns:
            `CommitInfo`: The commit; as a string its address.

        Raises:
            ArgumentError: If `branch` and `revision` differ, or what can only be None is not.
            HubError: If the Hub cannot be reached, or refuses.
        """
        _refuse_settings_of_the_mixin(config, model_card_kwargs)
        if branch is not None and revision not in (None, branch):
            raise ArgumentError(
                f"`branch` must be the `revision` where both are given; got {branch!r} and {revision!r}. Drop one."
            )
        check_flags(overwrite_card=overwrite_card)
        optional = {"private": private, "create_pr": create_pr}
        check_flags(**{name: flag for name, flag in optional.items() if flag is not None})
        revision = revision or branch
        with hub_errors(repo_id, "push the report"), tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), overwrite_card=True)
            api = HfApi(token=token)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            # Who proposes a change to somebody else's repository may make no branches in it.
            if revision is not None and not create_pr and not revision.startswith("refs/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            card = None if overwrite_card else remote_card(repo_id, revision, token)
            is_kept = card is not None and not is_unedited(card)
            ignored = [ignore_patterns] if isinstance(ignore_patterns, str) else list(ignore_patterns or ())
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=[*ignored, *([CARD_FILE] if is_kept else [])] or None,
                delete_patterns=delete_patterns,
            )
        if is_kept:
            logger.warning(
                "%s of %s on the Hub was written by hand and is kept; `overwrite_card=True` (`--overwrite-card`) "
                "replaces it.",
                CARD_FILE,
                shown(repo_id),
            )
        return commit

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the report's card as huggingface_hub's object; the mixin's arguments have no meaning here."""
        return ModelCard(write_card(self.settings, self.moments, self.means, self.traits))

    def _save_pretrained(self, save_directory: Path) -> None:
        self._write(save_directory, overwrite_card=False)

    def _write(self, folder: Path, *, overwrite_card: bool) -> None:
        write_report(
            folder,
            self.settings,
            self.moments,
            self.weight_sample,
            self.means,
            self.traits,
            overwrite_card=overwrite_card,
        )


def _refuse_settings_of_the_mixin(config: object, model_card_kwargs: object) -> None:
    for name, value in (("config", config), ("model_card_kwargs", model_card_kwargs)):
        if value is not None:
            raise ArgumentError(f"`{name}` must be None (a report writes its own config and card); got {value!r:.40}.")


def _is_path(name: str | os.PathLike[str]) -> bool:
    """Tell whether a name can only be a folder's, never a repository's."""
    return isinstance(name, os.PathLike) or os.path.isabs(name) or name.startswith((".", "~"))
