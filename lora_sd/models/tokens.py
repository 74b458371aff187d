"""How long a caption is to a text encoder, counted without torch: the words of CLIP, or those of the starter model."""

from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from .find import STARTER

MOST = 75  # tokens that an encoder reads at once, beside those for beginning and end
CLIP = Path(__file__).parent / "configs" / "tokenizer"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # as openai/CLIP splits a text


def counts(texts: list[str], *, starter: bool = False) -> list[int]:
    """Tokens of each text, without those for its beginning and end."""
    found = (_starter() if starter else _clip()).encode_batch_fast(texts, add_special_tokens=False)
    return [len(encoding) for encoding in found]


@cache
def _starter() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(STARTER / "tokenizer" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@cache
def _clip() -> Tokenizer:
    """The tokenizer of every Stable Diffusion model: their vocabulary is the same, only the padding differs."""
    pairs = models.BPE.from_file(
        str(CLIP / "vocab.json"),
        str(CLIP / "merges.txt"),
        end_of_word_suffix="</w>",
        unk_token="<|endoftext|>",
    )
    tokenizer = Tokenizer(pairs)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
