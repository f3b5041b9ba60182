"""VectorQuantizer in scikit-learn's own checks, pipelines and searches of parameters."""

import pickle

import numpy as np
import pytest

import gpuzip
from tests.lazy import Lazy

ours = Lazy("gpuzip.sklearn")

X = np.random.default_rng(0).standard_normal((700, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def installed() -> None:  # not while tests are collected, which imports it for no test
    pytest.importorskip("sklearn")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        *(
            pytest.param(one, marks=pytest.mark.full)
            for one in ({"codec": "SQfp16"}, {"codec": "SQ8", "output": "codes"})
        ),
    ],
)
def test_passes_scikit_learn_s_checks(settings):
    from sklearn.utils.estimator_checks import check_estimator

    passed = [
        check for check in check_estimator(ours.VectorQuantizer(**settings)) if check["status"] == "passed"
    ]
    assert len(passed) > 40


@pytest.mark.parametrize(
    "codec", ["SQ8", "PQ4x4", "LloydMax2", "Binary", gpuzip.ProductQuantizer(4, 4)], ids=str
)
def test_decodes_to_the_rows_of_the_codec(codec):
    settings = gpuzip.from_spec(codec) if isinstance(codec, str) else codec
    fitted = settings.fit(X, seed=3)
    decoded = ours.VectorQuantizer(codec, random_state=3).fit(X)
    assert np.array_equal(decoded.transform(X[:50]), fitted.encode(X[:50]).decode().numpy())
    codes = ours.VectorQuantizer(codec, output="codes", random_state=3).fit(X)
    assert np.array_equal(codes.transform(X[:50]), fitted.encode(X[:50]).data[:].numpy())
    assert np.array_equal(codes.inverse_transform(codes.transform(X[:50])), decoded.transform(X[:50]))
    assert np.array_equal(decoded.inverse_transform(decoded.transform(X)), decoded.transform(X))


def test_parameters_are_set_cloned_and_pickled():
    from sklearn import base

    quantizer = ours.VectorQuantizer("PQ4x4", output="codes").fit(X)
    assert quantizer.get_params() == {"codec": "PQ4x4", "output": "codes", "random_state": 0}
    assert list(quantizer.get_feature_names_out()) == ["vectorquantizer0", "vectorquantizer1"]
    assert not hasattr(base.clone(quantizer), "codec_")
    again = pickle.loads(pickle.dumps(quantizer))
    assert np.array_equal(again.transform(X), quantizer.transform(X))
    quantizer.set_params(codec="SQ8", output="decoded").fit(X)
    assert isinstance(quantizer.codec_, gpuzip.ScalarQuantizer)
    assert quantizer.transform(X).shape == X.shape


@pytest.mark.full
def test_a_grid_of_codecs_is_searched_in_a_pipeline():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = (X[:, 0] + X[:, 1] > 0).astype(int)
    pipeline = make_pipeline(StandardScaler(), ours.VectorQuantizer(), LogisticRegression())
    search = GridSearchCV(pipeline, {"vectorquantizer__codec": ["SQ8", "Binary"]}, cv=3).fit(X, labels)
    scores = dict(zip(["SQ8", "Binary"], search.cv_results_["mean_test_score"], strict=True))
    assert scores["SQ8"] > scores["Binary"] > 0.7
    assert search.best_params_ == {"vectorquantizer__codec": "SQ8"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"codec": "PQ5x4"}, "m must divide d=16"),
        ({"codec": "nothing"}, "nothing"),
        ({"codec": 3}, "codec must be a codec or a text; got 3"),
        ({"output": "both"}, "output must be 'decoded' or 'codes'; got 'both'"),
    ],
)
def test_settings_that_do_not_suit_are_refused(settings, reason):
    with pytest.raises(gpuzip.GpuzipError, match=reason):
        ours.VectorQuantizer(**settings).fit(X)


def test_only_codes_are_decoded():
    quantizer = ours.VectorQuantizer("PQ4x4", output="codes").fit(X)
    with pytest.raises(gpuzip.GpuzipError, match="must be the uint8 codes of transform; got float32"):
        quantizer.inverse_transform(X)
