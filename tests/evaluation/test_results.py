"""results.json: what is written is read, also what older versions wrote."""

import json

from lofi.evaluation.results import Results, read_results, write_results

FIRST_FOUR = {"mAP": {"0.50": 0.5}, "average_mAP": 0.5, "AR": {"1": 0.25, "100": 0.75}, "AUC": 0.625}


def test_a_file_with_the_first_four_keys_alone_is_read(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**FIRST_FOUR, "a key of another program": 1}))
    results = read_results(path)
    assert results == Results(**FIRST_FOUR)
    assert (results.protocol, results.AP, results.bootstrap) == ("default", {}, None)


def test_everything_comes_back_as_it_was_written_and_nothing_empty_is_written(tmp_path):
    path = tmp_path / "results.json"
    results = Results(
        **FIRST_FOUR,
        counts={"predictions": 3},
        AP={"jump": {"0.50": 0.5}},
        instances={"jump": 2},
        source={"subset": "test"},
        bootstrap={"average_mAP": [0.4, 0.6], "samples": 10},
    )
    write_results(path, results)
    assert read_results(path) == results
    written = json.loads(path.read_text())
    assert not {"errors", "against", "recall_at_kx", "versions"} & set(written)
    assert {key: written[key] for key in FIRST_FOUR} == FIRST_FOUR
