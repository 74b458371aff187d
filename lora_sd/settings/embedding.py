"""Settings of the trigger word as vectors that learn."""

from .setting import Section, setting

MOST_TOKENS = 32


class EmbeddingSettings(Section):
    """A word of its own"""

    tokens: int = setting(
        0,
        "How many vectors the trigger word becomes, which learn with the LoRA and lie in a file beside it; 2 to 4 hold a subject, 0 is off.",
        label="Vectors of the trigger word",
        ge=0,
        le=MOST_TOKENS,
    )
    initial: str = setting(
        "",
        'What the vectors are at the start, such as "young woman"; the trigger word as the model reads it, unless you set it.',
        label="Start as",
        max_length=200,
    )
    rate: float = setting(
        1e-3,
        "Learning rate of the vectors; higher than that of the LoRA, as they are few.",
        label="Vectors' rate",
        gt=0,
        le=10,
    )
