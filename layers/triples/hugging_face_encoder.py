"""Any encoder of Hugging Face for the slot of the triple extractor, with its own vocabulary and word pieces."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .encoders import SequenceEncoder

FIRST, LAST = 1, 2  # of a piece's characters
UNKNOWN = "\ufffd"  # Unicode's replacement character


class HuggingFaceEncoder(SequenceEncoder):
    """A pretrained Hugging Face transformer, such as BERT or RoBERTa of any language.

    It reads the text itself with its own tokenizer, so its vocabulary is the model's, whatever the training text has. A
    character's vector is that of its token: a Chinese character is a token of its own; all characters of a word piece
    have the piece's vector, plus a learned one (zero at first) for its first and for its last character. Characters of
    no token, as blanks, have zero. Word vectors are not used.

    Source: kexue.fm/archives/7161.

    Args:
        characters: the vocabulary of the data, for calls without texts; passed by the module that owns the encoder, as
            are the next two.
        word_vector_size: must be 0.
        max_length: longest input in characters.
        model: name on the hub, or folder, of model and tokenizer.
        files: configuration and tokenizer as text, by file name, to build the encoder without ``model``; a checkpoint
            has them.

    Raises:
        ValueError: if the model is not available or reads fewer than ``max_length`` characters, its tokenizer can't
            tell where its tokens are, or word vectors are given.
        ImportError: if transformers is not installed.

    Example:
        model:
          class_path: TripleExtractor
          init_args:
            encoder:
              class_path: HuggingFaceEncoder
              init_args: {model: hfl/chinese-roberta-wwm-ext}
    """

    reads_texts = True
    checkpoint_arguments = ("files",)

    def __init__(
        self,
        characters: Sequence[str],
        word_vector_size: int,
        max_length: int,
        model: str = "hfl/chinese-roberta-wwm-ext",
        files: dict | None = None,
    ) -> None:
        if word_vector_size:
            raise ValueError("HuggingFaceEncoder reads no word vectors: remove data.vectors_file")
        network, tokenizer = _from_files(files) if files else _pretrained(model)
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"encoder.model: the tokenizer of {model} can't tell where its tokens are; take another")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # what is padded is masked
        super().__init__(network.config.hidden_size, max_length)
        positions = getattr(network.config, "max_position_embeddings", None) or max_length + 2
        # RoBERTa and its kin number positions from the one of padding on.
        table = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        self.max_tokens = positions - (0 if padding is None else padding + 1)
        limit = self.max_tokens - tokenizer.num_special_tokens_to_add()
        if max_length > limit:
            raise ValueError(f"{model} reads at most {limit} characters: set data.max_length={limit}")
        self.network, self.tokenizer = network, tokenizer
        self.edges = nn.Embedding(4, network.config.hidden_size)  # neither end, first, last, both
        nn.init.zeros_(self.edges.weight)
        self.alphabet = [*characters[:1], UNKNOWN, *characters[2:]]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}edges.weight", torch.zeros_like(self.edges.weight))  # of earlier versions
        super()._load_from_state_dict(state_dict, prefix, *args)

    def portable_arguments(self) -> dict[str, Any]:
        """The arguments that build this encoder on another machine."""
        with tempfile.TemporaryDirectory() as folder:
            self.network.config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            return {"files": {path.name: path.read_text("utf-8") for path in Path(folder).iterdir() if _is_text(path)}}

    def forward(
        self, characters: Tensor, word_vectors: Tensor | None, mask: Tensor, texts: Sequence[str] | None = None
    ) -> Tensor:
        """As ``SequenceEncoder.forward``; ``texts`` are those of the rows, by default what the vocabulary says."""
        if texts is None:
            texts = ["".join(self.alphabet[number] for number in row if number) for row in characters.tolist()]
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        places, edges = token_of_characters(texts, tokens.pop("offset_mapping").tolist(), characters.shape[1])
        inputs = {name: values.to(mask.device) for name, values in tokens.items()}
        output = self.network(**inputs).last_hidden_state
        places, edges = places.to(mask.device), edges.to(mask.device)
        vectors = output.gather(1, places.clamp(min=0).unsqueeze(-1).expand(-1, -1, output.shape[-1]))
        vectors = vectors + self.edges(edges).to(output.dtype)
        return vectors * ((places >= 0).unsqueeze(-1) * mask).to(output.dtype)


def token_of_characters(
    texts: Sequence[str], offsets: Sequence[Sequence[Sequence[int]]], length: int
) -> tuple[Tensor, Tensor]:
    """For each character the first token that covers it, and whether it is the token's first or last character.

    Args:
        texts: B of them.
        offsets: for each text [start, end) of its tokens; special tokens have an empty span. Blanks at a token's ends,
            which belong to some vocabularies' words, are left out.
        length: L, at least that of the longest text.

    Returns:
        (B, L) int64: the place of the token, -1 for none; and ``FIRST`` + ``LAST``.
    """
    places = torch.full((len(texts), length), -1)
    edges = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, (text, spans) in enumerate(zip(texts, offsets, strict=True)):
        of_row, edges_of_row = [-1] * len(text), [0] * len(text)
        for token, (start, end) in enumerate(spans):
            while start < end and text[start].isspace():
                start += 1
            while start < end and text[end - 1].isspace():
                end -= 1
            # A character that became several tokens keeps the first.
            if start < end and of_row[start] < 0:
                of_row[start:end] = [token] * (end - start)
                edges_of_row[start] += FIRST
                edges_of_row[end - 1] += LAST
        places[row, : len(text)] = torch.tensor(of_row, dtype=torch.int64)
        edges[row, : len(text)] = torch.tensor(edges_of_row, dtype=torch.int64)
    return places, edges


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ImportError('HuggingFaceEncoder needs transformers: pip install "transformers>=5.10"') from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _pretrained(model: str) -> tuple[Any, Any]:
    """Network and tokenizer from a folder, without the network, or from the hub."""
    transformers = _transformers()
    options = {"local_files_only": True} if Path(model).is_dir() else {}
    try:
        return (
            transformers.AutoModel.from_pretrained(model, **options),
            transformers.AutoTokenizer.from_pretrained(model, **options),
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"encoder.model: {model} cannot be loaded ({' '.join(str(error).split())[:120]}); connect to the "
            "network, or give a folder with a model and its tokenizer"
        ) from error


def _from_files(files: Mapping[str, str]) -> tuple[Any, Any]:
    """Network, with weights still to be loaded, and tokenizer."""
    transformers = _transformers()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text, "utf-8")
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        return (
            transformers.AutoModel.from_config(config),
            transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True),
        )


def _is_text(path: Path) -> bool:
    return path.is_file() and path.suffix in (".json", ".txt", ".jinja")
