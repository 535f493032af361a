"""The examples in docstrings run and print what stands there."""

import doctest

import pytest

import resalign_utils as ra

SHOWN = [
    *("load_data", "build_model", "train", "trace", "residual_branch", "measure_alignment", "jacobian_svd"),
    *("truncated_svd", "dense_svd", "JacobianOperator", "linearize", "average_path_length", "fold"),
    *("neural_collapse", "fit_unconstrained_jacobians", "proof_of_concept"),
]


def examples(name):
    doc = getattr(ra, name).__doc__ or ""
    return doctest.DocTestParser().get_doctest(doc, {"__name__": "docstring"}, f"ra.{name}", None, None)


@pytest.mark.parametrize("name", [name for name in ra.__all__ if ">>>" in (getattr(ra, name).__doc__ or "")])
def test_example_prints_what_stands_there(name):
    said = []
    result = doctest.DocTestRunner(verbose=False).run(examples(name), out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_reader_meets_first_has_an_example(name):
    assert any(example.want for example in examples(name).examples)
