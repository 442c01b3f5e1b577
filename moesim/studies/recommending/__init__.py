"""Which deployment, which training layout: a space of legal ones, screened by arithmetic, the finalists simulated."""

from moesim.studies.recommending.recommend import Asked, recommend
from moesim.studies.recommending.recommendation import Recommendation, Row

__all__ = ["Asked", "Recommendation", "Row", "recommend"]
