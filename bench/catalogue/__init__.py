"""The models that Leanboard knows by name, and the search for any model's checkpoint. Nothing here imports torch."""

from bench.catalogue.entries import CATALOGUE, CatalogueEntry, HubModel
from bench.catalogue.hub import HubId
from bench.catalogue.resolving import ModelRef, config_of, is_here, named, resolve

__all__ = ["CATALOGUE", "CatalogueEntry", "HubId", "HubModel", "ModelRef", "config_of", "is_here", "named", "resolve"]
