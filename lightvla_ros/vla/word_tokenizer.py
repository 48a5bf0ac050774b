"""The tokenizer of policies that are trained from scratch: one token per word."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from lightvla_ros.contract.libero import LIBERO

PAD, BOS, STOP, UNKNOWN, END_OF_PROMPT = range(5)
PROMPT_LENGTH = 34  # LIBERO's longest instruction takes 33
PROMPT = 'in what action should the robot take to out : ?'  # words around an instruction
MARKS = Regex('[:?]')


def word_tokenizer(
    instructions: Sequence[str] = (), words: Sequence[str] = LIBERO.words
) -> Tokenizer:
    """Return the tokenizer: lower case, separate colons and question marks, BOS first.

    A prompt must end with ``END_OF_PROMPT``, which the manifest's ``append_ids`` adds.

    :param instructions: It knows their words, too.
    :param words: Words that it knows in any case: those of the robot's contract.
    """
    known = list(dict.fromkeys([*PROMPT.split(), *words]))
    found = {word for text in instructions for word in _words(text)}
    known += sorted(found - set(known))
    special = {'<pad>': PAD, '<s>': BOS, '</s>': STOP, '<unk>': UNKNOWN, '</prompt>': END_OF_PROMPT}
    vocabulary = special | {word: index for index, word in enumerate(known, len(special))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', BOS)]
    )
    return tokenizer


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(MARKS, behavior='isolated'),
        ]
    )


def _words(text: str) -> list[str]:
    return [word for word, _ in _splitter().pre_tokenize_str(text.lower())]
