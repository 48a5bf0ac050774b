"""The tokenizer of policies that are trained from scratch: one token per word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from lightvla_ros.contract.libero import LIBERO
from lightvla_ros.errors import ConfigError

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


def with_words(path: Path, texts: Sequence[str], rows: int) -> Tokenizer:
    """Return a tokenizer with one token per word that knows more words, by new ids.

    :param path: File of the tokenizer that knows fewer.
    :param texts: It knows their words, too, as it splits them itself.
    :param rows: Number of embeddings.
    :raises ConfigError: When the tokenizer is of another kind, or there are too few rows.
    """
    document = json.loads(path.read_text(encoding='utf-8'))
    if document['model'].get('type') != 'WordLevel':
        raise ConfigError(
            f'model.words: {path} splits any word into tokens, so it needs no more; set it to kept'
        )
    vocabulary = document['model']['vocab']
    fewer = Tokenizer.from_file(str(path))
    plain = (fewer.normalizer or normalizers.Sequence([])).normalize_str
    split = (fewer.pre_tokenizer or pre_tokenizers.Sequence([])).pre_tokenize_str
    found = {word for text in texts for word, _ in split(plain(text))}
    for word in sorted(found - set(vocabulary)):
        vocabulary[word] = max(vocabulary.values()) + 1
    if max(vocabulary.values()) >= rows:
        raise ConfigError(
            f'model.words: with those of the data ids go up to {max(vocabulary.values())}, but the '
            f'model has {rows} embeddings; say it in fewer words, or train from a preset'
        )
    return Tokenizer.from_str(json.dumps(document))


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(MARKS, behavior='isolated'),
        ]
    )


def _words(text: str) -> list[str]:
    return [word for word, _ in _splitter().pre_tokenize_str(text.lower())]
