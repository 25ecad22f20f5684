"""Parsers read genotypes and nothing else; what is not one is a ValueError of one line, and nothing is executed."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from lightning_nas.arch import Genotype
from lightning_nas.spaces import GENOTYPES, SPACES, get_space, load_genotype

V2 = GENOTYPES["darts_v2"]
NB = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"
PAIRS = "[('skip_connect', 0), ('skip_connect', 1)" + ", ('skip_connect', 0), ('skip_connect', 1)" * 3 + "]"

HOSTILE = {
    "call": "__import__('pathlib').Path('executed').touch()",
    "call inside": f"Genotype(normal=__import__('pathlib').Path('executed').touch(), reduce={PAIRS})",
    "call as operation": f"Genotype(normal=[(__import__('os').getcwd(), 0)], reduce={PAIRS})",
    "other call": f"Phenotype(normal={PAIRS}, reduce={PAIRS})",
    "attribute": f"Genotype.__class__(normal={PAIRS}, reduce={PAIRS})",
    "lambda": f"Genotype(normal=lambda: 1, reduce={PAIRS})",
    "dict": f"Genotype(normal={{'a': 1}}, reduce={PAIRS})",
    "set": f"Genotype(normal={{1}}, reduce={PAIRS})",
    "unhashable key": f"Genotype(normal={{[]: 1}}, reduce={PAIRS})",
    "walrus": f"Genotype(normal=(a := 1), reduce={PAIRS})",
    "f-string": f"Genotype(normal=f'{{1}}', reduce={PAIRS})",
    "comprehension": f"Genotype(normal=[('skip_connect', i) for i in (0, 1)], reduce={PAIRS})",
    "stars": "Genotype(**{'normal': 1})",
    "star": "Genotype(*[1, 2])",
    "power": f"Genotype(normal=9**9**9, reduce={PAIRS})",
    "huge number": f"Genotype(normal={'9' * 5000}, reduce={PAIRS})",
    "huge input": f"Genotype(normal={PAIRS.replace('0', '9' * 4000)}, reduce={PAIRS})",
    "huge list": f"Genotype(normal=[0] * 10**12, reduce={PAIRS})",
    "huge range": f"Genotype(normal={PAIRS}, normal_concat=range(2, 1000000000), reduce={PAIRS})",
    "range by keyword": f"Genotype(normal={PAIRS}, normal_concat=range(stop=6), reduce={PAIRS})",
    "range of a list": f"Genotype(normal={PAIRS}, normal_concat=range(*[6]), reduce={PAIRS})",
    "deep brackets": "Genotype(normal=" + "[" * 5000 + "]" * 5000 + ")",
    "deep parentheses": "Genotype(" + "(" * 5000,
    "deep minus": "Genotype(normal=" + "-" * 50000 + "1)",
    "deep sum": "Genotype(normal=" + "1+" * 50000 + "1)",
    "deep JSON": '{"a":' * 50000,
    "JSON list": '{"space": "darts", "picks": [1]}',
    "JSON number": '{"space": "darts", "picks": 3}',
    "JSON huge number": '{"space": "darts", "picks": ' + "9" * 5000 + "}",
    "JSON without picks": '{"space": "darts"}',
    "JSON unhashable": '{"space": "darts", "picks": {"normal/2<-0": [["none"]]}}',
    "JSON index": '{"space": "nasbench201", "picks": {"cell/1<-0": [1]}}',
    "JSON twice": '{"space": "nasbench201", "picks": {"cell/1<-0": ["none", "none"]}}',
    "JSON unknown decision": '{"space": "nasbench201", "picks": {"__class__": ["none"]}}',
    "JSON incomplete": '{"space": "nasbench201", "picks": {"cell/1<-0": ["none"]}}',
    "unknown space": '{"space": "mars", "picks": {}}',
    "bars": "|" * 100000,
    "long operation": NB.replace("nor_conv_3x3", "a" * 100000),
    "null byte": "Genotype(\0)",
    "long name": "x" * 5000,
    "name with a null byte": "a\0b",
    "folder": ".",
    "empty": "",
    "blank": " \n ",
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_what_is_no_genotype_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    for read in (load_genotype, *(get_space(name).parse for name in SPACES)):
        with pytest.raises(ValueError, match=r".") as error:
            read(HOSTILE[case])
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 800
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (V2.replace("sep_conv_3x3", "sep_conv_9x9"), r"unknown operation 'sep_conv_9x9' on normal/2<-0; allowed are"),
        (V2.replace("reduce=", "reduction="), "lacks 'reduce'"),
        (V2.replace("('skip_connect', 0)", "('skip_connect', 9)"), "node 4 cannot take node 9; allowed are 0 to 3"),
        (V2.replace("('skip_connect', 0)", "('skip_connect', -1)"), "cannot take node -1"),
        (V2.replace("('skip_connect', 0)", "('skip_connect', True)"), "not an .operation, input. pair"),
        (V2.replace("('skip_connect', 0)", "('skip_connect', '0')"), "not an .operation, input. pair"),
        (V2.replace("('skip_connect', 0)", "('skip_connect', 1)"), "takes node 1 twice"),
        (V2.replace("('skip_connect', 0), ", ""), "list of 8 pairs"),
        (V2.replace("range(2, 6)", "[2, 3]"), "only the concatenation of all"),
    ],
)
def test_darts_errors_say_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        get_space("darts").parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NB.replace("nor_conv_1x1", "conv_9x9"), "unknown operation 'conv_9x9' into node 3; allowed are"),
        (NB.replace("none~1|+", "none~2|+"), "node 2 of the cell reads"),
        (NB.rsplit("+", 1)[0], "not a NAS-Bench-201 cell"),
        (NB + "+|none~0|", "not a NAS-Bench-201 cell"),
        (NB.replace("|nor_conv_3x3~0|", "nor_conv_3x3~0"), "node 1 of the cell reads"),
    ],
)
def test_nasbench201_errors_say_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        get_space("nasbench201").parse(text)


@pytest.mark.parametrize(
    "text",
    [
        V2.replace("range(2, 6)", "[2, 3, 4, 5]"),
        re.sub(r"\(('\w+', \d)\)", r"[\1]", V2),
        V2.replace("normal=", "").replace("normal_concat=", "").replace("reduce=", "").replace("reduce_concat=", ""),
        V2.replace(", ", ",\n    "),
    ],
    ids=["lists for ranges", "lists for pairs", "positional", "over many lines"],
)
def test_darts_text_may_be_written_as_any_code_base_prints_it(text: str) -> None:
    assert get_space("darts").parse(text) == load_genotype("darts_v2")[1]


def test_an_operation_that_the_space_lacks_is_unknown_there() -> None:
    text = V2.replace("skip_connect", "none")
    assert get_space("darts").parse(text).space == "darts"
    with pytest.raises(ValueError, match="unknown operation 'none'"):
        get_space("darts_no_none").parse(text)


def test_a_genotype_of_another_space_is_refused() -> None:
    darts, other, bench = (get_space(name) for name in ("darts", "darts_no_none", "nasbench201"))
    genotype = bench.sample(random.Random(0))
    for ask in (darts.check, darts.format, darts.to_json, darts.vertex, darts.canonical, darts.graphs):
        with pytest.raises(ValueError, match="space 'nasbench201' was given to space 'darts'"):
            ask(genotype)
    with pytest.raises(ValueError, match="space 'darts' was given to space 'darts_no_none'"):
        other.parse(darts.to_json(darts.sample(random.Random(0))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda picks: picks.pop("normal/inputs/3"), "lacks the decision 'normal/inputs/3'"),
        (lambda picks: picks.update({"normal/inputs/3": (0,)}), "keeps 2 of"),
        (lambda picks: picks.update({"normal/2<-0": (9,)}), "not indices .9,."),
        (lambda picks: picks.update({"normal/9<-0": (1,)}), "no place for"),
    ],
)
def test_check_finds_what_is_missing_and_what_is_too_much(change, words: str) -> None:  # noqa: ANN001
    space, genotype = load_genotype("darts_v2")
    picks = dict(genotype.picks)
    change(picks)
    with pytest.raises(ValueError, match=words):
        space.check(Genotype("darts", picks))


def test_genotypes_are_loaded_from_files(tmp_path: Path) -> None:
    space, genotype = load_genotype("darts_v2")
    for name, content in {"a.json": space.to_json(genotype), "b.txt": V2, "c.txt": f"\n{V2}\n"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert load_genotype(tmp_path / name)[1] == load_genotype(str(tmp_path / name))[1] == genotype
    (tmp_path / "d.txt").write_text(NB, encoding="utf-8")
    assert load_genotype(tmp_path / "d.txt")[0].name == "nasbench201"
    (tmp_path / "e.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"utf-8|not a genotype"):
        load_genotype(tmp_path / "e.bin")


def test_json_names_what_it_keeps() -> None:
    space, genotype = load_genotype(NB)
    data = json.loads(space.to_json(genotype))
    assert data["space"] == "nasbench201"
    assert data["text"] == NB
    assert data["picks"]["cell/1<-0"] == ["nor_conv_3x3"]


def test_get_space_knows_names_and_spaces() -> None:
    space = get_space("darts")
    assert get_space(space) is space
    with pytest.raises(ValueError, match="unknown space 'mars'; known are darts"):
        get_space("mars")
