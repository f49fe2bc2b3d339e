"""Recurrent layers of language models, above all ON-LSTM, and the penalty on their output."""

from .activation_regularization import ActivationRegularization
from .recurrent import LSTM, ONLSTM, RecurrentLayer

__all__ = ["LSTM", "ONLSTM", "ActivationRegularization", "RecurrentLayer"]
