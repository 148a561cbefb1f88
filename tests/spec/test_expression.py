"""The grammar of losses, which knows no loss."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sgbench
from sgbench.core.errors import InputError
from sgbench.spec.expression import Expression, Family, Term, parse, parse_open

ROOT = Path(sgbench.__file__).parent.parent
OPTIONS = "no.such_module:Options"

numbers = st.floats(min_value=1e-300, max_value=1e300)
texts = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=8)
quotes = texts.filter(lambda text: '"' not in text).map(lambda text: f'"{text}"') | texts.filter(
    lambda text: "'" not in text
).map(lambda text: f"'{text}'")
paths = st.sampled_from(["./a-1.pt", "/data/β.pt", "s3://bucket/a.pt", "~/x=1/y", "weights/a.pt"])
singles = st.one_of(numbers, st.integers(-5, 5), st.booleans(), st.just("same"), quotes, paths)
weights = st.one_of(numbers, st.integers(0, 100), st.just(0.0))
options = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.one_of(numbers, st.integers(-5, 5)),
        "count": st.integers(-(10**20), 10**20),
        "flag": st.booleans(),
        "mode": st.sampled_from(["same", "other-mode"]) | quotes | paths,
        "list": st.lists(singles, max_size=3).map(lambda each: f"[{', '.join(map(str, each))}]"),
    },
)


@st.composite
def written_terms(draw):
    name = draw(st.sampled_from(["l1", "sg", OPTIONS]))
    given_options = draw(options) if name == OPTIONS else {}
    text = name
    if given_options:
        space = draw(st.sampled_from(["", " "]))
        text += "(" + f",{space}".join(f"{key}={space}{value}" for key, value in given_options.items()) + ")"
    if draw(st.booleans()):
        text = f"{draw(weights)!r}{draw(st.sampled_from(['*', ' * ']))}{text}"
    return text


expressions = st.lists(written_terms(), min_size=1, max_size=5).map(lambda terms: [*terms, "l1"])


@given(expressions)
def test_the_canonical_text_means_the_same_expression(terms):
    canonical = parse(" + ".join(terms))
    assert parse(str(canonical)) == canonical
    assert str(parse(str(canonical))) == str(canonical)


@given(expressions, st.randoms(use_true_random=False))
def test_the_order_of_terms_does_not_matter(terms, shuffle: random.Random):
    before = str(parse(" + ".join(terms)))
    shuffle.shuffle(terms)
    assert str(parse("+".join(terms))) == before


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("l1", "l1"),
        ("2*l1", "2.0*l1"),
        ("0*sg + l1", "l1"),
        ("sg + l1", "l1 + 1.0*sg"),
        ("l1 +1*sg", "l1 + 1.0*sg"),
        ("  1*l1\t+ 1e0 * sg ", "l1 + 1.0*sg"),
        ("0.1*sg + 0.2*sg + 0.7*sg + l1", "l1 + 1.0*sg"),
        ("0.7*sg + 0.2*sg + 0.1*sg + l1", "l1 + 1.0*sg"),
        ("l1 + sg() + -0.0*sg(order=1)", "l1 + 1.0*sg"),
        ("sg(order=1, operator=sobel)", "sg(operator=sobel, order=1)"),
        ("sg(order=2) + 2*sg", "2.0*sg + 1.0*sg(order=2)"),
        ("no.such_module:Loss(rate=-1e-3, flag=TRUE)", "no.such_module:Loss(flag=true, rate=-0.001)"),
        ("vgg(weights=[1,.5,TRUE,relu])", "vgg(weights=[1, 0.5, true, relu])"),
        ("vgg(weights=[])", "vgg(weights=[])"),
        ("sg(operator='sobel')", "sg(operator=sobel)"),
        ("""x(a='1', b='true', c='', d='it is', e="a'b")""", """x(a="1", b="true", c="", d="it is", e="a'b")"""),
        ("""x(a='a"b', b="λ", c="a, b)")""",) * 2,
        (
            "x(a=./net.pt, b='/data/net.pt', c=s3://b/n-1.pt, d='my net.pt')",
            'x(a=./net.pt, b=/data/net.pt, c=s3://b/n-1.pt, d="my net.pt")',
        ),
    ],
)
def test_canonical_form(text, canonical):
    assert str(parse(text)) == canonical
    assert parse(text) == parse(canonical)
    assert hash(parse(text)) == hash(parse(canonical))


def test_reading_an_expression_imports_nothing(tmp_path):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    code = (
        "from sgbench.spec.expression import parse as p; import sys; print(p('trap:Loss + l1'), 'torch' in sys.modules)"
    )
    path = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path)
    assert done.stdout == "l1 + 1.0*trap:Loss False\n"


def test_parts_of_an_expression():
    expression = parse("0.5*sg(order=1) + l1 + 2*sg")
    assert expression == Expression((Term("l1"), Term("sg", 2.0), Term("sg", 0.5, {"order": 1})))
    assert [term.call for term in expression.terms] == ["l1", "sg", "sg(order=1)"]
    assert expression.weight_of("sg") == 2.5
    assert expression.weight_of("ssim") == 0.0


def test_options_are_numbers_truth_values_texts_and_lists():
    (term,) = parse("x(a=1, b=[1, 0.5, true, word], c='two words', d=/data/a.pt, e='1')").terms
    assert term.options == {"a": 1, "b": (1, 0.5, True, "word"), "c": "two words", "d": "/data/a.pt", "e": "1"}
    assert [type(value) for value in term.options["b"]] == [int, float, bool, str]


@pytest.mark.parametrize(
    ("text", "lam", "expected"),
    [
        ("l1 + 1.0*sg", 0.1, "l1 + 0.1*sg"),
        ("l1 + 1.0*sg", 0, "l1"),
        ("l1 + 3*sg(operator=sobel)", 1, "l1 + 1.0*sg(operator=sobel)"),
        ("l1 + λ*sg", 0.1, "l1 + 0.1*sg"),
        ("lambda*sg(order=1) + l1 + 0.5*sg", 2, "l1 + 0.5*sg + 2.0*sg(order=1)"),
        ("λ*ssim", 0.5, "0.5*ssim"),
    ],
)
def test_lambda_takes_the_place_of_the_weight(text, lam, expected):
    loss = parse_open(text)
    family = loss if isinstance(loss, Family) else loss.varying("sg")
    assert str(family.at(lam)) == expected


def test_a_family_has_one_text():
    assert str(parse_open("lambda * ssim + 0.5*l1+0.5*l1")) == "l1 + λ*ssim"
    assert str(parse_open(" λ*ssim(a=2)")) == "λ*ssim(a=2)"
    assert parse_open("l1 + λ*ssim") == parse_open("lambda*ssim + l1") == parse("l1 + 2*ssim").varying("ssim")
    assert len({parse_open("l1 + λ*ssim"), parse_open("lambda*ssim + l1")}) == 1
    assert parse("l1").varying("sg") is None


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("l1 + λ*ssim", "ssim"),
        ("l1 + λ*x:Y(a=1)", "x:Y(a=1)"),
        ("l1 + λ*sg", None),
        ("l1 + λ*sg(order=1)", None),
        ("λ*sg + sg(order=1)", "sg"),
    ],
)
def test_only_what_the_paper_varies_needs_no_name(text, called):
    assert parse_open(text).called == called


def test_lambda_is_refused_where_it_is_not_clear_or_leaves_nothing():
    with pytest.raises(InputError, match=r"λ is ambiguous in .* it has 2 terms 'sg'"):
        parse("l1 + sg + sg(order=1)").varying("sg")
    with pytest.raises(InputError, match=r"'λ\*sg with λ = 0.0' has no term with a coefficient above 0"):
        parse("sg").varying("sg").at(0.0)
    with pytest.raises(InputError, match=r"λ is ambiguous in 'λ\*l1 \+ λ\*sg': it stands in 2 places; one is needed\."):
        parse_open("λ*l1 + λ*sg")
    with pytest.raises(InputError, match=r"λ is ambiguous in .*: 'sg' has a coefficient beside λ; give it one\."):
        parse_open("l1 + λ*sg + 0.5*sg()")
    with pytest.raises(InputError, match=r"loss 'l1 \+ λ\*sg' leaves its coefficient λ open; a number is needed in"):
        parse("l1 + λ*sg")


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("", "ends", "a loss such as 'l1' or '0.1*sg'"),
        ("l1 +", "ends", "a loss such as 'l1' or '0.1*sg'"),
        ("l1 + 0.5", "ends", "'*' and a loss after the coefficient 0.5"),
        ("0.5*", "ends", "the name of a loss"),
        ("0.5 l1", "found 'l1'", "'*' and a loss after the coefficient 0.5"),
        ("2*3*l1", "found '3'", "the name of a loss"),
        ("l1 sg", "found 'sg'", "'+' and another term"),
        ("l1 - 0.5*sg", "found '-'", "'+' and another term"),
        ("l1 -0.5*sg", "found '-0.5'", "'+' and another term"),
        ("l1 & sg", "found '&'", "'+' and another term"),
        ("l1)", "found ')'", "'+' and another term"),
        ("(l1)", "found '('", "the name of a loss"),
        ("sg(", "ends", "an option such as 'order=2'"),
        ("sg(order=2", "ends", "',' or ')'"),
        ("sg(order=2 eps=1)", "found 'eps'", "',' or ')'"),
        ("sg(order 2)", "found '2'", "'=' after 'order'"),
        ("sg(order=)", "found ')'", "a value for 'order'"),
        ("sg(order=", "ends", "a value for 'order'"),
        ("sg(2)", "found '2'", "the name of an option"),
        ("sg(order=1,)", "found ')'", "the name of an option"),
        ("λ", "found 'λ'", "the name of a loss"),
        ("l1 + λ*", "ends", "the name of a loss"),
        ("2*λ*l1", "found 'λ'", "the name of a loss"),
        ("λ*2*l1", "found '2'", "the name of a loss"),
        ("a/b", "found 'a/b'", "the name of a loss"),
        ("sg(order=[1", "ends", "',' or ']'"),
        ("sg(order=[1 2])", "found '2'", "',' or ']'"),
        ("sg(order=[1,])", "found ']'", "a value for 'order'"),
        ("sg(order=[[1]])", "found '['", "a value for 'order'"),
    ],
)
def test_a_syntax_error_says_what_was_found_and_what_was_expected(text, found, expected):
    with pytest.raises(InputError) as error:
        parse(text)
    start = f"loss '{text}' ends" if found == "ends" else f"loss '{text}': {found}"
    assert str(error.value) == f"{start} where {expected} is expected."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1*l1", "the coefficient of 'l1' is -1; a finite number ≥ 0 is needed"),
        ("1e999*l1", "the coefficient of 'l1': 1e999 is not finite"),
        ("1e308*l1 + 1e308*l1", "the coefficients of 'l1' add up to infinity"),
        ("0*l1 + 0*sg", "has no term with a coefficient above 0"),
        ("11", "ends where '\\*' and a loss after the coefficient 11"),
        ("sg(order=1, order=2)", "option 'order' is given twice"),
        ("1e-400*sg + l1", "the coefficient of 'sg': 1e-400 is too small to differ from 0"),
        ("sg(eps=1e-400)", "eps: 1e-400 is too small to differ from 0"),
        ("sg(eps=1e400)", "eps: 1e400 is not finite"),
        ("sg(operator='a)", "the quotation mark after 'operator' is not closed"),
        ('sg(operator=["a)', "the quotation mark after 'operator' is not closed"),
        ("sg(operator='a\nb')", "'operator' has a character that cannot be printed"),
    ],
)
def test_bad_input_is_one_sentence(text, message):
    with pytest.raises(InputError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)


@given(st.text("l1sg+*()=.,-0e operatλ[]'\"/:", max_size=30))
def test_nonsense_is_parsed_or_refused_but_never_breaks(text):
    try:
        canonical = parse_open(text)
    except InputError:
        return
    assert parse_open(str(canonical)) == canonical
