"""The tokenizer of policies that are trained from scratch: one token per word of LIBERO."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

PAD, BOS, STOP, UNKNOWN, END_OF_PROMPT = range(5)
PROMPT_LENGTH = 34  # LIBERO's longest instruction takes 33
# All words of LIBERO's Object and Spatial suites, and of the prompt around them
WORDS = (
    'in what action should the robot take to out : ? '
    'pick up and place it on of from next between '
    'alphabet basket bbq black bottom bowl box butter cabinet center cheese chocolate cookie cream '
    'drawer dressing juice ketchup milk orange plate pudding ramekin salad sauce soup stove table '
    'tomato top wooden'
)


def word_tokenizer() -> Tokenizer:
    """Return the tokenizer: lower case, separate colons and question marks, BOS first.

    A prompt must end with ``END_OF_PROMPT``, which the manifest's ``append_ids`` adds.
    """
    special = {'<pad>': PAD, '<s>': BOS, '</s>': STOP, '<unk>': UNKNOWN, '</prompt>': END_OF_PROMPT}
    vocabulary = special | {word: index for index, word in enumerate(WORDS.split(), len(special))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex('[:?]'), behavior='isolated'),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', BOS)]
    )
    return tokenizer
