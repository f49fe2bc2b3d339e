"""The search for modules, compiled by Numba: node moves, two levels, levels above and below."""

from .trial import num_starts as num_starts
from .trial import search as search
