"""Names and options of an expression, held against the losses that there are."""

import inspect
import subprocess
import sys

import pytest
from torch import nn

from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES
from sgbench.spec import check_backbone, check_loss
from sgbench.spec.resolve import check_metric


class Options(nn.Module):
    """A loss with an option of every kind."""

    def __init__(
        self,
        *,
        rate: float = 0.5,
        count: int = 3,
        flag: bool = False,
        mode: str = "same",
        weights: tuple[float, ...] = (1.0, 0.5),
        layers: list[str] = ["conv1"],  # noqa: B006 # as plug-ins do
    ):
        raise AssertionError("nothing is constructed")


class NeedsWidth(nn.Module):
    def __init__(self, width: int):
        super().__init__()


def half(sr, hr):
    return (sr - hr).sum() / 2


OPTIONS = f"{__name__}:Options"


@pytest.mark.parametrize(
    "text",
    [
        "l1 + 1.0*sg",
        "sg + l1",
        "l1+1*sg",
        "l1 +1*sg",
        "  1*l1\t+ 1e0 * sg ",
        "l1 + 0.5*sg + 0.5*sg(order=2)",
        "0.25*sg + l1 + 0.75*sg(operator=central, eps=1e-8)",
        "l1 + sg()",
        "0.1*sg + 0.2*sg + 0.7*sg + l1",
        "0.7*sg + 0.2*sg + 0.1*sg + l1",
        "l1 + sg(order=2.0)",
        "l1 + sg + 0*sg(operator=sobel)",
        "l1 + sg + -0.0*sg(order=1)",
    ],
)
def test_spellings_of_one_loss(text):
    assert str(check_loss(text)) == "l1 + 1.0*sg"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("l1", "l1"),
        ("2*l1", "2.0*l1"),
        ("0*sg + l1", "l1"),
        ("sg(order=1, operator=sobel)", "sg(operator=sobel, order=1)"),
        ("sg(operator=sobel) + 2*sg", "2.0*sg + 1.0*sg(operator=sobel)"),
        ("sg(order=1.0)", "sg(order=1)"),
        ("sg(operator=sobel-raw)", "sg(operator=sobel-raw)"),
        (f"{OPTIONS}(rate=1)", f"{OPTIONS}(rate=1.0)"),
        (f"{OPTIONS}(rate=0.50, count=3, flag=false, mode=same)", OPTIONS),
        (f"{OPTIONS}(flag=TRUE)", f"{OPTIONS}(flag=true)"),
        (f"{OPTIONS}(rate=-1e-3)", f"{OPTIONS}(rate=-0.001)"),
        (f"{OPTIONS}(weights=[1, .5], layers=['conv1'])", OPTIONS),
        (f"{OPTIONS}(weights=[1, 2, 3], layers=[])", f"{OPTIONS}(layers=[], weights=[1.0, 2.0, 3.0])"),
        (f"{OPTIONS}(mode='same')", OPTIONS),
        (f"{OPTIONS}(mode=./a.pt)", f"{OPTIONS}(mode=./a.pt)"),
        (f"lambda*{OPTIONS}(rate=0.5) + l1", f"l1 + λ*{OPTIONS}"),
        ("0.005*gan(kind=vanilla, lr=1e-4, discriminator=unet) + vgg(conv5=1) + l1", "0.005*gan + 1.0*l1 + 1.0*vgg"),
    ],
)
def test_canonical_form(text, canonical):
    assert str(check_loss(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("huber", "unknown loss 'huber'; valid: charbonnier, consistency, "),
        ("sg(ordr=1)", "unknown option of loss 'sg' 'ordr': did you mean 'order'\\? Valid: eps, operator, order"),
        ("l1(order=1)", "loss 'l1' takes no options, but was given 'order'"),
        ("sg(order=two)", "loss 'sg': order is 'two'; a number is needed\\.$"),
        ("sg(eps=[1, 2])", "loss 'sg': eps is \\[1, 2\\]; a number is needed\\.$"),
        (f"{OPTIONS}(weights=[1, a])", "weights is 'a'; a number is needed\\.$"),
        ("l1 + λ*sg + sg(order=2)", "λ is ambiguous in .*: 'sg' has a coefficient beside λ"),
        (f"{OPTIONS}(flag=yes)", "flag is 'yes'; true or false is needed\\.$"),
        (f"{__name__}:NeedsWidth", "needs its option 'width': .*NeedsWidth\\(width=…\\)"),
        (f"{__name__}:Missing", "cannot be imported from"),
        (f"{__name__}:half", "is a function; a class of torch.nn.Module is needed"),
        ("gan(discriminator=unte)", "unknown discriminator 'unte': did you mean 'unet'\\? Valid: patch, unet, vgg"),
        ("gan(discriminator=3)", "unknown discriminator '3'; valid: patch, unet, vgg"),
        ("gan(discriminator=math:pi)", "is a float; a class of torch.nn.Module is needed"),
        ("math:pi", "is a float; a class of torch.nn.Module is needed"),
    ],
)
def test_bad_input_is_one_sentence(text, message):
    with pytest.raises(InputError, match=message) as error:
        check_loss(text)
    assert "\n" not in str(error.value)


def test_a_module_that_ends_the_process_when_it_is_imported_is_bad_input(tmp_path, monkeypatch):
    (tmp_path / "a_script.py").write_text("import sys\nprint('hello')\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for check in (check_loss, check_backbone, check_metric):
        with pytest.raises(InputError, match=r"'a_script:X': SystemExit: 3\.$"):
            check("a_script:X")


def test_a_required_option_is_kept():
    assert str(check_loss(f"{__name__}:NeedsWidth(width=3)")) == f"{__name__}:NeedsWidth(width=3)"


def test_a_built_in_loss_declares_what_its_constructor_takes_and_is_not_imported_for_that():
    for name in LOSSES._targets:
        loss, declared = LOSSES.load(name), LOSSES.declaration(name)
        options = [each for each in inspect.signature(loss).parameters.values() if each.kind is each.KEYWORD_ONLY]
        assert declared.options == {each.name: each.default for each in options}
        assert (declared.summary, declared.source) == (loss.__doc__.partition("\n")[0], loss.source)
    assert LOSSES.declaration(OPTIONS) is None
    code = "import sys; from sgbench.spec import check_loss as c; c('l1 + sg(order=1)'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
