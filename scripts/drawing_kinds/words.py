"""Words, sentences, numbers and lines of code to write."""

from __future__ import annotations

import random

# Letters, the frequent ones first.
ALPHABETS = {
    "latin": "etaoinshrdlucmfwypvbgkjqxz",
    "cyrillic": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэф",
    "greek": "αοιετσνηυρπκμλωδγχθφβξζψ",
}
_COMMON_TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which
one you were all her she there would their we him been has when who will no more if out so up said what its
about than into them can only other time new some could these two may first then do any like my now over such
our man even most made after also did many off before must well back through years much where your way down
should because long each just state people those too mr how little good world make very year still see own work
men day get here old life both between being under three never know same last another while us might great go
come since against right came take used himself few house use during without again place around however home
small found part system figure value result water light model screen video letter window signal number colour
street garden history weather
"""
_NAMES_TEXT = """
index value count result name data buffer frame width height size offset total row column item node key path
config state error token block cell input output line text start end step rate scale width_limit user_id
is_valid parse render update fetch reset handle compute draw load save split merge apply visit encode scan build
"""

_COMMON, _NAMES = _COMMON_TEXT.split(), _NAMES_TEXT.split()

# What a piece of code is, for its colour.
Token = tuple[str, str]


def word(rng: random.Random, alphabet: str = "latin") -> str:
    """One word: common English, letters at random, or a number."""
    kind = rng.random()
    if kind < 0.05:
        return number(rng)
    if alphabet == "latin" and kind < 0.85:
        return rng.choice(_COMMON)
    letters = ALPHABETS[alphabet]
    return "".join(letters[int(len(letters) * rng.random() ** 1.5)] for _ in range(rng.randint(2, 11)))


def words(rng: random.Random, count: int, alphabet: str = "latin") -> str:
    """Several, in lower or upper case or with capitals."""
    case = rng.choice((str.lower, str.title, str.title, str.capitalize, str.upper))
    return case(" ".join(word(rng, alphabet) for _ in range(count)))


def sentence(rng: random.Random, alphabet: str = "latin") -> str:
    """With a capital, a full stop, and some commas."""
    said = [word(rng, alphabet) for _ in range(rng.randint(4, 16))]
    parts = [part + ("," if rng.random() < 0.1 else "") for part in said[:-1]]
    return " ".join((*parts, said[-1])).capitalize() + rng.choice("....?!:")


def number(rng: random.Random) -> str:
    """As in tables and prices."""
    kind = rng.randrange(6)
    if kind == 0:
        return str(rng.randint(0, 99))
    if kind == 1:
        return f"{rng.randint(0, 9_999_999):,}"
    if kind == 2:
        return f"{rng.uniform(0, 999):.2f}"
    if kind == 3:
        return f"{rng.uniform(-99, 99):.1f}%"
    if kind == 4:
        return f"${rng.uniform(0, 9999):,.2f}"
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"


def code_line(rng: random.Random) -> list[Token]:
    """A line of code without its indent: pieces of text, each with what it is: keyword, name, call, string, number,
    comment or sign."""
    kind = rng.randrange(9)
    if kind == 0:
        return [("# " + sentence(rng)[:60], "comment")]
    if kind == 1:
        return [
            (rng.choice(("def ", "fn ", "function ")), "keyword"),
            (_name(rng), "call"),
            ("(", "sign"),
            (f"{_name(rng)}, {_name(rng)}", "name"),
            ("):", "sign"),
        ]
    if kind == 2:
        return [
            (rng.choice(("for ", "while ")), "keyword"),
            (_name(rng), "name"),
            (" in ", "keyword"),
            (_name(rng), "call"),
            ("(", "sign"),
            *_value(rng),
            ("):", "sign"),
        ]
    if kind == 3:
        return [
            ("if ", "keyword"),
            (_name(rng), "name"),
            (rng.choice((" == ", " < ", " >= ", " != ")), "sign"),
            *_value(rng),
            (":", "sign"),
        ]
    if kind == 4:
        return [
            ("return ", "keyword"),
            (_name(rng), "name"),
            (rng.choice((" + ", " * ", " - ")), "sign"),
            *_value(rng),
        ]
    if kind == 5:
        return [
            (_name(rng), "name"),
            (".", "sign"),
            (_name(rng), "call"),
            ("(", "sign"),
            *_value(rng),
            (")", "sign"),
        ]
    if kind == 6:
        return [
            (rng.choice(("import ", "const ", "let ", "use ")), "keyword"),
            (f"{_name(rng)}.{_name(rng)}", "name"),
        ]
    return [
        (_name(rng), "name"),
        (" = ", "sign"),
        *_value(rng),
        *((), ((", ", "sign"), *_value(rng)))[rng.randrange(2)],
    ]


def _name(rng: random.Random) -> str:
    return rng.choice(_NAMES)


def _value(rng: random.Random) -> list[Token]:
    kind = rng.randrange(4)
    if kind == 0:
        return [(str(rng.randint(0, 4096)), "number")]
    if kind == 1:
        return [(f'"{words(rng, rng.randint(1, 4)).lower()}"', "string")]
    if kind == 2:
        return [(_name(rng), "call"), ("(", "sign"), (_name(rng), "name"), (")", "sign")]
    return [(_name(rng), "name"), ("[", "sign"), (str(rng.randint(0, 9)), "number"), ("]", "sign")]


def code(rng: random.Random, lines: int) -> list[list[Token]]:
    """Lines of code that are indented, with empty lines between."""
    depth = 0
    made: list[list[Token]] = []
    for _ in range(lines):
        if rng.random() < 0.12:
            made.append([])
            depth = rng.choice((0, 0, depth))
            continue
        line = code_line(rng)
        made.append([("    " * depth, "sign"), *line])
        if line[-1][0].endswith(":"):
            depth = min(3, depth + 1)
        elif rng.random() < 0.2:
            depth = max(0, depth - 1)
    return made
