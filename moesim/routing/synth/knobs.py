"""The knobs of synthetic routing; `routing.synth.fit_back` recovers each from a trace."""

from __future__ import annotations

from pydantic import Field, model_validator

from moesim.yamlfile import Items, Section


class Popularity(Section):
    """How loads of experts are distributed: exactly one of the four."""

    zipf: float | None = Field(None, ge=0, le=3, description="share of rank r is proportional to r ** -zipf")
    lognormal: float | None = Field(None, ge=0, le=3, description="standard deviation of the log shares")
    dirichlet: float | None = Field(None, gt=0, le=1000, description="concentration; small is uneven")
    statistics: str | None = Field(None, description="a file of the shipped DeepSeek-V3 load statistics")

    @model_validator(mode="after")
    def _one(self) -> Popularity:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(type(self).model_fields)} (given: {', '.join(given) or 'none'})"
            )
        return self


class Knobs(Section):
    """What `moesim trace synth` makes. Fractions are of tokens or experts, as their description says."""

    tokens: int = Field(20_000, ge=1, le=100_000_000)
    popularity: Popularity = Popularity.model_validate({"lognormal": 0.6})
    affinity: float = Field(0.0, ge=0, le=1, description="chance that a choice follows from the one a layer earlier")
    token_dependence: float = Field(0.0, ge=0, le=1, description="chance that a token's id alone decides its experts")
    vocabulary: int = Field(1000, ge=1, le=1_000_000, description="token ids, Zipf distributed with exponent 1")
    locality: float = Field(0.0, ge=0, le=1, description="chance that a token repeats the experts of the one before it")
    domains: Items[str] = Field(("all",), description="domains, languages, modalities or tasks; one a request")
    domain_strength: float = Field(0.0, ge=0, le=1, description="fraction of experts whose share differs by domain")
    mix_period: int = Field(0, ge=0, description="steps in which the domains' mix turns once; 0: constant")
    mix_amplitude: float = Field(0.0, ge=0, le=1, description="how far the mix swings: 1 means to zero")
    drift: float = Field(0.0, ge=0, le=1, description="fraction of experts that have a new share by the end, gradually")
    churn: float = Field(0.0, ge=0, le=1, description="fraction of experts that get a new share at each epoch, at once")
    epochs: int = Field(1, ge=1, le=1000, description="equal parts of the trace between which churn happens")
    request_length: int = Field(256, ge=1)
    tokens_per_step: int = Field(1024, ge=1)
