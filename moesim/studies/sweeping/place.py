"""A placement question as a file: `mode: place`, and the options of `moesim place` as keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from moesim import yamlfile
from moesim.costs import find_profile
from moesim.hardware import find_topology
from moesim.models import find_model
from moesim.studies.inputs import Digest
from moesim.studies.load import apply, place
from moesim.studies.placing import Options
from moesim.studies.placing.recordings import paths_of
from moesim.studies.routing import trace_path
from moesim.yamlfile import Items, Section

PLACE: Final = "place"  # the mode


class PlaceFile(Section):
    """What is asked of `moesim place`, under the names of its options."""

    moesim: Literal[1] = Field(description="format version")
    name: str = Field("place", description="shown in results")
    mode: Literal["place"] = Field(description="a placement, planned and judged")
    trace: str = Field(description="a shipped name, recordings with commas between, or a folder")
    topology: str = Field(description="a shipped topology or a YAML file")
    gpus: Annotated[int, Field(ge=1)] = Field(description="that share the experts")
    redundant: int = Field(0, ge=0, description="slots beyond one an expert")
    by_layer: bool = Field(False, description="redundant is a mean over layers")
    strategies: Items[str] = Field((), description="to compare; none: the usual ones")
    objective: str = Field("makespan", description="what strategies minimise; see `moesim list`")
    dispatch: str | None = Field(None, description="of tokens over replicas")
    holdout: float | str | None = Field(None, description="share of windows, or a recording, that no strategy sees")
    window: int | None = Field(None, ge=1, description="tokens of a window")
    phase: Literal["prefill", "decode", "train"] | None = Field(None, description="plan for its tokens alone")
    model: str | None = Field(None, description="of the step that is simulated")
    transplant: bool = Field(False, description="carry the trace over to the model; an assumption")
    costs: str = Field("auto", description="profile")
    simulate: bool | None = Field(None, description="time a step under each; none: where it can be")
    changes: Items[str] = Field((), description="keys of the simulated step, as a.b=value")


@dataclass(frozen=True)
class PlaceLoaded:
    """A question, checked."""

    file: PlaceFile

    def options(self, seed: int) -> Options:
        """For `search`. Raises BadInput."""
        asked = self.file.model_dump(exclude={"moesim", "name", "mode"})
        return Options(**asked, seed=seed)

    def identity(self, digest: Digest) -> str:
        """sha256 of the keys with the contents of the files that they name. Raises BadInput."""
        body: dict[str, Any] = self.file.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
        body["trace"] = [_content(name, digest) for name in paths_of(self.file.trace)]
        body["topology"] = digest(find_topology(self.file.topology))
        if self.file.model is not None:
            body["model"] = digest(find_model(self.file.model))
        if (profile := find_profile(self.file.costs)) is not None:
            body["costs"] = f"{self.file.costs} {digest(profile)}"
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _content(name: str, digest: Digest) -> Any:
    """Digest of a recording: of its file, or of each file of its folder by name."""
    path = Path(name)
    if path.is_dir():
        return {one.name: digest(one) for one in sorted(path.iterdir()) if one.is_file()}
    return digest(path if path.exists() else trace_path(name))


def load_placing(base: yamlfile.Document, overrides: Sequence[str]) -> PlaceLoaded:
    """Plain data with keys set. Raises BadInput with the place of a wrong one."""
    document = yamlfile.Document(dict(base.data), base.source, base.lines)
    overridden = apply(document, overrides)
    return PlaceLoaded(yamlfile.validate(PlaceFile, document.data, lambda keys: place(document, overridden, keys)))
